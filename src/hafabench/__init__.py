"""hafabench: reproduces Tables 1-6 of *Building Vision Transformers with Hierarchy Aware Feature Aggregation*.

Importing this package is cheap on purpose: it loads neither torch nor any library built on it.
``import hafabench.models`` registers the models with timm.
"""

__version__ = "0.1.0"
