"""Training and evaluation of one run: classification (torch and timm) and dense tasks (mmsegmentation, mmdetection).

`engine_for` chooses the engine of a task. The modules of this folder are shared by both engines.
"""
