"""The models of Tables 1-6. Importing this package registers them with timm: ``timm.create_model("pvt_tiny_hafa")``.

``create`` builds every model, this project's and timm's. With ``dense=True`` it returns a `DenseBackbone`.
"""

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.models.checkpoints.classifier import LoadReport, load_classifier
from hafabench.models.dense_backbone import DenseBackbone
from hafabench.models.hafa.tokens import Tokens
from hafabench.models.registry import ModelFamily, build_model, create, family_of, is_own, timm_name

# Importing a family registers its entry points with timm.
OWN_MODELS: dict[str, ModelSpec] = {name: spec for name, spec in CATALOG.items() if is_own(spec)}

__all__ = [
    "OWN_MODELS",
    "DenseBackbone",
    "LoadReport",
    "ModelFamily",
    "Tokens",
    "build_model",
    "create",
    "family_of",
    "is_own",
    "load_classifier",
    "timm_name",
]
