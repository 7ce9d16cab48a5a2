"""The engine of semantic segmentation (Semantic FPN, mmseg) and instance segmentation (Mask R-CNN, mmdet).

These are the tasks of sections 4.2 and 4.3 of the paper. mmengine's runner drives the training. Configurations are
built from the run; backbones come from `hafabench.models` and start from the run's classification checkpoint. As in
classification, data and random numbers are functions of the seed and the step: a resume needs a step, weights,
optimiser and schedules.

Only `hafabench.engines.dense.mm` imports the OpenMMLab packages, and only `load_mm` imports that module.
"""

from hafabench.engines.dense.evaluation import evaluate
from hafabench.engines.dense.model import create_model
from hafabench.engines.dense.training import train

__all__ = ["create_model", "evaluate", "train"]
