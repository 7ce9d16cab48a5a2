"""Data sets: made (the embedded digits), verified, drawn and loaded. Importing this package does not import torch.

| module          | contents                                                                            |
|-----------------|-------------------------------------------------------------------------------------|
| `paths`         | the folders of ImageNet-1k, COCO 2017 and ADE20K: one data format each              |
| `listing`       | the files of a data set, listed in the same way for every purpose                   |
| `arrangement`   | recognises data sets that are arranged in another way than their data format        |
| `sort_imagenet` | sorts the validation images of ImageNet into class folders                          |
| `verify`        | the checks of a data set: `imagenet`, `ade20k` and `coco` have one module each      |
| `prepare`       | makes an embedded data set, verifies it, and writes a report                        |
| `report`        | the report of a verified data set, with its digest                                  |
| `manifest`      | the manifest of a generated data set, and digests                                   |
| `images`        | the decoding of an image file                                                       |
| `masks`         | the values of index masks, read by one rule for every purpose                       |
| `classes`       | class names and colours                                                             |
| `loaders`       | classification data for training (imports torch)                                    |
| `preview`       | contact sheets                                                                      |
| `digits`        | writes scenes of digits in the three data formats                                   |
| `scenes`        | scenes of digits on backgrounds, with the visible part of each digit                |
| `scans`         | the handwritten digits, their split, and their drawing at any size                  |
| `textures`      | procedural backgrounds                                                              |
"""
