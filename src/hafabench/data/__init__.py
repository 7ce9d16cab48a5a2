"""Data sets: made (the embedded digits), verified, drawn and loaded. Importing this package loads no torch.

| module     | what it does                                                                        |
|------------|-------------------------------------------------------------------------------------|
| `paths`    | the layouts of ImageNet-1k, COCO 2017 and ADE20K                                    |
| `scans`    | the handwritten digits, their split, and how one is drawn at any size               |
| `textures` | procedural backgrounds                                                              |
| `scenes`   | scenes of digits on backgrounds, with what is visible of each                       |
| `digits`   | writes scenes in the three layouts                                                  |
| `manifest` | what a generated data set says about itself; digests                                |
| `verify`   | says everything that is wrong with a data set, makes what can be made, reports      |
| `checks`   | the checks behind `verify`, one per layout                                          |
| `images`   | decodes an image or says why not                                                    |
| `classes`  | class names and colours                                                             |
| `preview`  | contact sheets                                                                      |
| `loaders`  | classification data for training (torch)                                            |
"""
