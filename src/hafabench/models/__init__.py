"""The models of Tables 1-6. Importing this package registers them with timm: ``timm.create_model("pvt_tiny_hafa")``.

One way in serves every model, this project's and timm's: ``create(name_or_spec, ...)``; dense tasks ask it for
``dense=True`` and call ``forward_tokens(x)``.
"""

from hafabench.models.checkpoints.classifier import LoadReport, load_classifier
from hafabench.models.hafa.tokens import Tokens
from hafabench.models.registry import OWN_MODELS, build_model, create, is_own, timm_name

__all__ = ["OWN_MODELS", "LoadReport", "Tokens", "build_model", "create", "is_own", "load_classifier", "timm_name"]
