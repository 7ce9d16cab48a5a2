"""ResNet and ResNeXt, as timm builds them.

He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, https://arxiv.org/abs/1512.03385. Xie et al.,
*Aggregated Residual Transformations for Deep Neural Networks*, CVPR 2017, https://arxiv.org/abs/1611.05431.
"""

from __future__ import annotations

from hafabench.models.registry import ModelFamily, TimmModels

FAMILY = ModelFamily(
    "resnet",
    timm=TimmModels(
        pyramid_levels=(1, 2, 3, 4),
        # mmdet freezes the stem and the first stage, as in the counts of Table 3. mmseg trains all parameters.
        frozen_in_detection=("conv1", "bn1", "layer1"),
        # As in mmseg's configurations.
        sync_batch_norm=True,
    ),
)
