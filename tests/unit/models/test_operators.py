"""The replacement of mmcv's compiled operators, against independent computations."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from hafabench.engines.dense import operators
from hafabench.errors import UserError


@pytest.fixture(scope="module")
def mmcv_ops():
    operators.install()
    import mmcv.ops

    return mmcv.ops


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """Greedy suppression written from its definition."""
    kept: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = boxes[candidate]
        for other in kept:
            u1, v1, u2, v2 = boxes[other]
            width = min(x2, u2) - max(x1, u1) + offset
            height = min(y2, v2) - max(y1, v1) + offset
            shared = max(width, 0) * max(height, 0)
            area = (x2 - x1 + offset) * (y2 - y1 + offset) + (u2 - u1 + offset) * (v2 - v1 + offset)
            if shared / (area - shared) > threshold:
                break
        else:
            kept.append(int(candidate))
    return kept


def naive_roi_align(features, rois, size, scale, ratio, aligned):
    """RoIAlign (He et al. 2017) as a sum of bilinear samples; differentiable by autograd, one sample at a time."""

    def sample(image, y, x):
        height, width = image.shape[1:]
        if y < -1 or y > height or x < -1 or x > width:
            return image.new_zeros(image.shape[0])
        y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        upper = image[:, top, left] * (1 - dx) + image[:, top, right] * dx
        lower = image[:, bottom, left] * (1 - dx) + image[:, bottom, right] * dx
        return upper * (1 - dy) + lower * dy

    shift = 0.5 if aligned else 0.0
    pooled = []
    for index, *corners in rois.tolist():
        x1, y1, x2, y2 = (corner * scale - shift for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / size[0], width / size[1]
        rows = ratio or math.ceil(bin_h)
        columns = ratio or math.ceil(bin_w)
        bins = []
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [
                    sample(
                        features[int(index)],
                        y1 + (i + (a + 0.5) / rows) * bin_h,
                        x1 + (j + (b + 0.5) / columns) * bin_w,
                    )
                    for a in range(rows)
                    for b in range(columns)
                ]
                bins.append(torch.stack(samples).mean(0))
        pooled.append(torch.stack(bins, 1).reshape(features.shape[1], *size))
    return torch.stack(pooled)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_equals_greedy_suppression(mmcv_ops, threshold, offset):
    generator = np.random.default_rng(int(threshold * 10) + offset)
    corner = generator.uniform(0, 20, (120, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(4, 40, (120, 2))], 1).astype(np.float32)
    scores = generator.permutation(120).astype(np.float32) / 120
    expected = naive_nms(boxes.astype(np.float64), scores, threshold, offset)

    kept, indices = mmcv_ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset=offset)

    assert 10 < len(expected) < 110
    assert indices.tolist() == expected
    np.testing.assert_array_equal(kept[:, :4].numpy(), boxes[expected])


def test_nms_of_no_boxes(mmcv_ops):
    _, indices = mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert indices.shape == (0,)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_and_its_gradient_equal_bilinear_sampling(mmcv_ops, ratio, aligned):
    torch.manual_seed(ratio)
    features = torch.randn(2, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    # The third box crosses the border, and the last is smaller than one position.
    rois = torch.tensor(
        [
            [0, 3.0, 2.0, 30.0, 25.0],
            [1, 0.5, 8.2, 17.3, 33.9],
            [0, -9.0, -6.0, 60.0, 50.0],
            [1, 20.0, 20.0, 21.5, 20.7],
        ],
        dtype=torch.float64,
    )
    weights = torch.randn(4, 3, 3, 2, dtype=torch.float64)
    expected = naive_roi_align(features, rois, (3, 2), 0.25, ratio, aligned)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), features)

    found = mmcv_ops.roi_align(features, rois, (3, 2), 0.25, ratio, "avg", aligned)
    (gradient,) = torch.autograd.grad((found * weights).sum(), features)

    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-9)
    assert gradient.abs().sum() > 0


def test_roi_align_takes_half_features_with_single_boxes(mmcv_ops):
    features = torch.randn(1, 2, 8, 8).half().requires_grad_()
    rois = torch.tensor([[0, 4.0, 4.0, 24.0, 20.0]])
    found = mmcv_ops.roi_align(features, rois, (2, 2), 0.25, 0, "avg", True)
    found.sum().backward()
    single = mmcv_ops.roi_align(features.detach().float(), rois, (2, 2), 0.25, 0, "avg", True)
    assert found.dtype == features.grad.dtype == torch.float16
    torch.testing.assert_close(found.float(), single, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", range(5))
def test_regions_that_are_not_finite_are_nan(mmcv_ops, value, column):
    """A diverged detector gives such boxes. Without this, torchvision ends the process with a segmentation fault."""
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    rois = torch.tensor([[0, 4.0, 4.0, 24.0, 20.0]]).repeat(2, 1)
    (expected,) = torch.autograd.grad(mmcv_ops.roi_align(features, rois[:1], (2, 2), 0.25, 0).sum(), features)
    rois[1, column] = value
    found = mmcv_ops.roi_align(features, rois, (2, 2), 0.25, 0)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    (gradient,) = torch.autograd.grad(found.sum(), features)
    torch.testing.assert_close(gradient, expected)


def test_maximum_pooling_is_refused(mmcv_ops):
    with pytest.raises(UserError, match="pool_mode 'max'"):
        mmcv_ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), 1.0, 0, "max", True)


def test_another_operator_fails_with_its_name(mmcv_ops):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(UserError, match="'softnms' is not compiled"):
        mmcv_ops.soft_nms(boxes, torch.ones(1))


def test_versions_are_text(mmcv_ops):
    assert "torchvision" in mmcv_ops.get_compiler_version()
    assert mmcv_ops.get_compiling_cuda_version()


@pytest.mark.slow
def test_a_compiled_extension_is_left_alone(tmp_path):
    """A package `mmcv` with its own `_ext` represents a full mmcv: `install` must return this `_ext`."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("compiled = True\n")
    code = "from hafabench.engines.dense.operators import install; assert install().compiled"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
