"""The engine of image classification (torch and timm; paper, section 4.1)."""

from hafabench.engines.classification.evaluation import evaluate
from hafabench.engines.classification.model import create_model
from hafabench.engines.classification.training import train

__all__ = ["create_model", "evaluate", "train"]
