"""The compiled operators that mmcv asks for, on torchvision's, where mmcv comes without its own (mmcv-lite).

``import mmcv.ops`` looks up some hundred names in the extension module ``mmcv._ext``. Mask R-CNN calls three of them:
``nms``, ``roi_align_forward`` and ``roi_align_backward``. `install` registers a module of that name which has these
on torchvision's operators (CPU and CUDA) and, for every other name, a function that says what is missing. A really
compiled ``mmcv._ext`` is left alone.
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
    """Stands in for ``mmcv._ext``: functions of this class are its operators, any other name is a clear error."""

    def __init__(self) -> None:
        super().__init__(EXTENSION, doc=__doc__)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # Reached only for names that are not defined below. Dunder names belong to Python's own machinery.
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
        """What answers instead of the C++ compiler's version."""
        return f"torchvision {torchvision.__version__}"

    @staticmethod
    def get_compiling_cuda_version() -> str:
        """The CUDA version that torch, and so torchvision's operators, were built with."""
        return torch.version.cuda or "not available"

    @staticmethod
    def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        """Indices of the boxes that survive non-maximum suppression, highest score first.

        Args:
            bboxes: (N, 4) corners x1, y1, x2, y2 in pixels.
            scores: (N,).
            iou_threshold: boxes that overlap a better one by more are dropped.
            offset: 0: a side is x2 - x1; 1: it is x2 - x1 + 1, the legacy convention of integer corners.

        Returns:
            (K,) int64 indices.
        """
        if offset:
            # A pixel more to the right and down turns legacy areas and overlaps into the usual ones.
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
        """Fill ``output`` (R, C, h, w) with the average of bilinear samples of ``input`` (B, C, H, W) in each bin.

        Args:
            rois: (R, 5) image index, x1, y1, x2, y2 in pixels of the image.
            argmax_y, argmax_x: used by maximum pooling only.
            spatial_scale: cells per image pixel.
            sampling_ratio: samples per bin and axis; 0 is one per cell.
            pool_mode: 1, average; maximum (0) has no torchvision counterpart.
            aligned: shift by half a cell, so that pixel centres are where they are in the image.
        """
        _average_only(pool_mode)
        size = (aligned_height, aligned_width)
        cells, rois = _same_dtype(input, rois)
        output.copy_(
            torch.ops.torchvision.roi_align(cells, rois, spatial_scale, *size, sampling_ratio, bool(aligned))
        )

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
        """Fill ``grad_input`` (B, C, H, W) with the gradient of `roi_align_forward` under ``grad_output``."""
        _average_only(pool_mode)
        size = (aligned_height, aligned_width)
        gradient, rois = _same_dtype(grad_output, rois)
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
    # Under mixed precision features are half while boxes stay single; torchvision's kernels want one type.
    dtype = torch.promote_types(values.dtype, rois.dtype)
    return values.to(dtype), rois.to(dtype)


def install() -> ModuleType:
    """Make ``mmcv._ext`` importable and return it; call before the first import of ``mmcv.ops``.

    A compiled extension, or a stand-in already installed, stays what it is.
    """
    if EXTENSION in sys.modules:
        return sys.modules[EXTENSION]
    if importlib.util.find_spec(EXTENSION) is not None:
        return importlib.import_module(EXTENSION)
    module = TorchvisionOperators()
    sys.modules[EXTENSION] = module
    return module
