"""Image classification: training with exact resume, and evaluation (torch and timm)."""
