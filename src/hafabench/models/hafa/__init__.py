"""HAFA's parts, independent of any backbone: tokens, clustering, LAA, SIA and the plugin that attaches them."""

from hafabench.models.hafa.clustering import dpc_knn
from hafabench.models.hafa.laa import LocalAdaptiveAggregation
from hafabench.models.hafa.mergers import GridMerger, MergerStyle, build_merger, key_value_source
from hafabench.models.hafa.sia import SemanticInformationAggregation
from hafabench.models.hafa.tokens import Aggregation, ClusterTable, Context, Tokens

__all__ = [
    "Aggregation",
    "ClusterTable",
    "Context",
    "GridMerger",
    "LocalAdaptiveAggregation",
    "MergerStyle",
    "SemanticInformationAggregation",
    "Tokens",
    "build_merger",
    "dpc_knn",
    "key_value_source",
]
