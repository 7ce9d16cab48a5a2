"""torchvision's operators in place of mmcv's compiled ones, which mmcv-lite does not contain.

``import mmcv.ops`` looks up about a hundred names in the extension module ``mmcv._ext``. Mask R-CNN calls three of
them: ``nms``, ``roi_align_forward`` and ``roi_align_backward``. `install` registers a module of that name that
implements these three by torchvision's operators (CPU and CUDA). Every other name is a function that raises a clear
error. A compiled ``mmcv._ext`` is used unchanged.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

import torch
import torchvision
from torch import Tensor

from hafabench.errors import UserError

EXTENSION = "mmcv._ext"


class TorchvisionOperators(ModuleType):
    """A replacement of ``mmcv._ext`` with the functions of this class; any other name raises a clear error."""

    def __init__(self) -> None:
        super().__init__(EXTENSION, doc=__doc__)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # Python calls this only for names that are not defined below, among them its own dunder names.
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_arguments: object, **_options: object) -> NoReturn:
            raise UserError(
                f"mmcv operator {name!r} is not compiled in this installation and has no torchvision counterpart "
                "here; it needs mmcv with its compiled operators instead of mmcv-lite"
            )

        return missing

    @staticmethod
    def get_compiler_version() -> str:
        """Return the library that is used instead of a C++ compiler."""
        return f"torchvision {torchvision.__version__}"

    @staticmethod
    def get_compiling_cuda_version() -> str:
        """Return the CUDA version that torch and torchvision's operators were built with."""
        return torch.version.cuda or "not available"

    @staticmethod
    def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        """Return the indices of the boxes that non-maximum suppression keeps, highest score first.

        Args:
            bboxes: (N, 4), corners x1, y1, x2, y2 in pixels.
            scores: (N,), one per box.
            iou_threshold: Boxes whose IoU with a better box is above this are dropped.
            offset: With 0 a side is x2 - x1, with 1 it is x2 - x1 + 1, the legacy convention of integer corners.

        Returns:
            (K,) int64 indices.
        """
        if offset:
            # One more pixel to the right and down turns legacy areas and overlaps into the usual ones.
            bboxes = bboxes + bboxes.new_tensor([0, 0, offset, offset])
        return torch.ops.torchvision.nms(bboxes, scores, iou_threshold)

    @staticmethod
    def roi_align_forward(
        input: Tensor,
        rois: Tensor,
        output: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Fill ``output`` with the averages of bilinear samples of ``input`` in each bin.

        The output of a region that is not finite is NaN; torchvision would read memory outside of the map.

        Args:
            input: (B, C, H, W), feature maps.
            rois: (R, 5), image index, x1, y1, x2, y2 in pixels of the image.
            output: (R, C, ``aligned_height``, ``aligned_width``), filled in place.
            argmax_y: Used by maximum pooling only.
            argmax_x: Used by maximum pooling only.
            aligned_height: Number of bins per column.
            aligned_width: Number of bins per row.
            spatial_scale: Positions of the map per image pixel.
            sampling_ratio: Samples per bin and axis; 0 takes one per position.
            pool_mode: 1 is the average. 0, the maximum, has no torchvision counterpart.
            aligned: Whether regions are shifted by half a position, so that pixel centres agree with the image.
        """
        _average_only(pool_mode)
        size = (aligned_height, aligned_width)
        maps, rois = _same_dtype(input, rois)
        rois, missing = _without_non_finite(rois)
        found = torch.ops.torchvision.roi_align(maps, rois, spatial_scale, *size, sampling_ratio, bool(aligned))
        output.copy_(found.masked_fill(missing, torch.nan))

    @staticmethod
    def roi_align_backward(
        grad_output: Tensor,
        rois: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        grad_input: Tensor,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Fill ``grad_input`` with the gradient of `roi_align_forward`; regions that are not finite contribute none.

        Args:
            grad_output: (R, C, ``aligned_height``, ``aligned_width``), gradient of the output.
            rois: (R, 5), image index, x1, y1, x2, y2 in pixels of the image.
            argmax_y: Used by maximum pooling only.
            argmax_x: Used by maximum pooling only.
            grad_input: (B, C, H, W), filled in place.
            aligned_height: Number of bins per column.
            aligned_width: Number of bins per row.
            spatial_scale: Positions of the map per image pixel.
            sampling_ratio: Samples per bin and axis; 0 takes one per position.
            pool_mode: 1 is the average.
            aligned: Whether regions are shifted by half a position.
        """
        _average_only(pool_mode)
        size = (aligned_height, aligned_width)
        gradient, rois = _same_dtype(grad_output, rois)
        rois, missing = _without_non_finite(rois)
        gradient = gradient.masked_fill(missing, 0)
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                gradient, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, bool(aligned)
            )
        )


def _average_only(pool_mode: int) -> None:
    if pool_mode != 1:
        raise UserError(
            "mmcv operator 'roi_align' with pool_mode 'max' is not compiled in this installation; "
            "it needs mmcv with its compiled operators instead of mmcv-lite"
        )


def _same_dtype(values: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    # Under mixed precision features are half and boxes single precision; torchvision's kernels require one type.
    dtype = torch.promote_types(values.dtype, rois.dtype)
    return values.to(dtype), rois.to(dtype)


def _without_non_finite(rois: Tensor) -> tuple[Tensor, Tensor]:
    """Return regions (R, 5) with zeros for those that are not finite, and a mask (R, 1, 1, 1) of these."""
    missing = ~rois.isfinite().all(dim=1, keepdim=True)
    return rois.masked_fill(missing, 0), missing[:, :, None, None]


def install() -> ModuleType:
    """Make ``mmcv._ext`` importable and return it; call before the first import of ``mmcv.ops``.

    A compiled extension, or a replacement that is already installed, is kept.
    """
    if EXTENSION in sys.modules:
        return sys.modules[EXTENSION]
    if importlib.util.find_spec(EXTENSION) is not None:
        return importlib.import_module(EXTENSION)
    module = TorchvisionOperators()
    sys.modules[EXTENSION] = module
    return module
