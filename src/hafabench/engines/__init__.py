"""Training and evaluation of one run: classification (torch + timm) and dense tasks (mmengine)."""
