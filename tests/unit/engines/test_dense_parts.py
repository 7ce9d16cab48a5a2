"""Sampling, schedules, configuration and metrics of the dense engine, each against its definition."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from hafabench.config.catalog import CATALOG
from hafabench.data.classes import ade20k_classes
from hafabench.engines.dense import config as dense_config
from hafabench.engines.dense import model as dense_model
from hafabench.engines.dense.coco_ap import average_precisions
from hafabench.engines.dense.model import load_mm
from hafabench.engines.dense.sampling import AspectSampler
from hafabench.engines.dense.training import DenseTrainer
from hafabench.engines.distributed import World
from hafabench.engines.interrupt import StopRequest
from hafabench.errors import UserError
from tools.tiny_runs.dense import RECIPES, TINY, tiny_run


def test_batches_hold_one_orientation():
    generator = np.random.default_rng(0)
    landscape = generator.random(103) < 0.7
    size, batch = 2, 8
    seen = []
    mixed = 0
    for rank in range(size):
        for keys in AspectSampler(landscape, batch, seed=3, stop=12, rank=rank, size=size):
            indices = [index for index, _, _ in keys]
            assert len(indices) == batch // size
            mixed += len({bool(landscape[index]) for index in indices}) > 1
            seen += indices
    # 12 steps of 8 are one epoch of 103 images: none comes twice.
    assert len(seen) == len(set(seen)) == 96
    assert mixed <= 1
    kinds = [landscape[keys[0][0]] for keys in AspectSampler(landscape, 4, seed=3, stop=25)]
    assert len(set(kinds[:10])) == 2, "kinds come mixed over the epoch"


def test_batches_of_one_orientation_begin_anywhere():
    landscape = np.arange(40) % 3 > 0
    whole = list(AspectSampler(landscape, 4, seed=1, stop=25))
    assert list(AspectSampler(landscape, 4, seed=1, start=13, stop=25)) == whole[13:]
    assert list(AspectSampler(landscape, 4, seed=2, stop=25)) != whole


def learning_rates(recipe, total: int, steps_per_epoch: int) -> list[float]:
    """The rates that mmengine's schedulers give, step by step."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    mm = load_mm()
    with mm.scope("detection"):
        wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), dense_config.optimizer_config(recipe, on_gpu=False))
        schedulers = [
            PARAM_SCHEDULERS.build(config, default_args={"optimizer": wrapper})
            for config in dense_config.schedule_config(recipe, total, steps_per_epoch)
        ]
    rates = []
    for _ in range(total):
        rates.append(wrapper.get_lr()["lr"][0])
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_segmentation_rate_is_polynomial():
    recipe = RECIPES["segmentation"].model_copy(update={"min_lr": 1e-6})
    expected = [(recipe.lr - 1e-6) * (1 - step / 20) ** 0.9 + 1e-6 for step in range(20)]
    assert learning_rates(recipe, 20, 5) == pytest.approx(expected, rel=1e-9)


def test_segmentation_rate_after_a_warm_up():
    recipe = RECIPES["segmentation"].model_copy(update={"warmup_iterations": 4, "warmup_factor": 0.1})
    expected = [recipe.lr * (0.1 + 0.9 * step / 4) for step in range(4)]
    expected += [recipe.lr * (1 - (step - 4) / 16) ** 0.9 for step in range(4, 20)]
    assert learning_rates(recipe, 20, 5) == pytest.approx(expected, rel=1e-9)


def test_detection_rate_steps_down_at_its_milestones():
    update = {"warmup_iterations": 3, "warmup_factor": 0.001, "milestones": (2, 3), "lr_gamma": 0.1}
    recipe = RECIPES["detection"].model_copy(update=update)
    factors = [0.001 + 0.999 * step / 3 for step in range(3)] + [1.0] * 7 + [0.1] * 5 + [0.01] * 5
    expected = [recipe.lr * factor for factor in factors]
    assert learning_rates(recipe, 20, 5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 9}, "batch_size: 9 images per step, but there are only 6 training images"),
        ({"warmup_iterations": 4}, "warmup_iterations: 4 steps of warm-up, but the training has only 4"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out(tmp_path, change, sentence):
    run = tiny_run(tmp_path, "segmentation", **change)
    with pytest.raises(UserError, match=sentence):
        DenseTrainer(run, World(0, 0, 1, torch.device("cpu")), StopRequest())


@pytest.mark.parametrize(
    ("mergers", "neck", "expected"),
    [
        (("grid", "laa", "laa", "sia"), "auto", True),
        (("grid", "laa", "laa", "sia"), "fpn", False),
        (("grid", "laa", "laa", "laa"), "auto", False),
        (("grid", "grid", "grid", "grid"), "token_fpn", True),
    ],
)
def test_neck_follows_the_last_merger_unless_told(mergers, neck, expected):
    from dataclasses import replace

    from hafabench.config.catalog import CATALOG

    spec = replace(CATALOG["pvt_tiny"], mergers=mergers)
    recipe = RECIPES["detection"].model_copy(update={"neck": neck})
    assert dense_config.uses_token_fpn(spec, recipe) is expected


@pytest.fixture
def truth(tmp_path) -> COCO:
    """Two images, two categories; a small and a medium object, no large one."""
    objects = [(1, 1, 1, [4, 4, 20, 20]), (2, 1, 2, [40, 10, 50, 60]), (3, 2, 1, [10, 20, 22, 18])]
    annotations = [
        {
            "id": identifier,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": [
                [box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3], box[0], box[1] + box[3]]
            ],
        }
        for identifier, image, category, box in objects
    ]
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 100} for number in (1, 2)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": annotations,
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(content))
    return COCO(str(file))


def test_average_precision_of_the_truth_itself_is_100(truth):
    found = [{**annotation, "score": 0.9} for annotation in truth.dataset["annotations"]]
    values = average_precisions(truth, found, "bbox")
    assert values == pytest.approx({"ap": 100, "ap50": 100, "ap75": 100, "ap_s": 100, "ap_m": 100})
    assert "ap_l" not in values, "no large object: not defined"


def test_average_precision_of_a_miss(truth):
    """Category b is missed, category a is found with its boxes 20 % too wide: IoU 0.83."""
    found = []
    for annotation in truth.dataset["annotations"]:
        x, y, width, height = annotation["bbox"]
        if annotation["category_id"] == 1:
            found.append({**annotation, "bbox": [x, y, 1.2 * width, height], "score": 0.9})
    values = average_precisions(truth, found, "bbox")
    # Seven of the ten thresholds 0.50, 0.55, ... 0.95 are below 1 / 1.2.
    assert values["ap"] == pytest.approx(100 * 7 / 10 / 2)
    assert values["ap50"] == pytest.approx(50)


def test_average_precision_without_detections_is_0(truth):
    assert average_precisions(truth, [], "segm") == {"ap": 0, "ap50": 0, "ap75": 0, "ap_s": 0, "ap_m": 0}


def test_mean_iou_against_a_confusion_matrix():
    generator = torch.Generator().manual_seed(0)
    mm = load_mm()
    metric = mm.metric("segmentation")
    # The fifth class does not occur, so no mean includes it.
    metric.dataset_meta = {"classes": tuple("abcde")}
    confusion = np.zeros((5, 5))
    for _ in range(3):
        label = torch.randint(0, 4, (1, 20, 30), generator=generator)
        predicted = torch.where(torch.rand(1, 20, 30, generator=generator) < 0.6, label, label.roll(1, 2))
        label[:, :2] = 255
        metric.process({}, [{"pred_sem_seg": {"data": predicted}, "gt_sem_seg": {"data": label}}])
        counted = label != 255
        np.add.at(confusion, (label[counted].numpy(), predicted[counted].numpy()), 1)
    hits, truths, predictions = confusion.diagonal()[:4], confusion.sum(1)[:4], confusion.sum(0)[:4]
    assert metric.evaluate(3) == pytest.approx(
        {
            "miou": 100 * np.mean(hits / (truths + predictions - hits)),
            "pixel_acc": 100 * hits.sum() / truths.sum(),
            "mean_acc": 100 * np.mean(hits / truths),
        }
    )


def test_evaluation_batches_have_one_size():
    mm = load_mm()
    samples = [{"inputs": torch.zeros(3, 8, width), "data_samples": None} for width in (8, 10)]
    assert len(mm.same_size_collate([samples[0], samples[0]])["inputs"]) == 2
    with pytest.raises(UserError, match=r"several sizes in one batch \(8x8, 10x8\): set eval_batch_size to 1"):
        mm.same_size_collate(samples)


def bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Interpolate an image (H, W, 3) with half-pixel centres, as OpenCV's INTER_LINEAR does, in double precision."""

    def weights(size: int, new: int) -> np.ndarray:
        at = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), max(size - 2, 0))
        matrix = np.zeros((new, size))
        matrix[np.arange(new), low] = 1 - (at - low)
        matrix[np.arange(new), np.minimum(low + 1, size - 1)] += at - low
        return matrix

    height_matrix, width_matrix = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ab,bcd,ec->aed", height_matrix, image.astype(float), width_matrix, optimize=True)


def evaluation_input(tmp_path, size: tuple[int, int], divisor: int | None):
    """Send an image of noise through the evaluation pipeline; return its pixels, the input and the packed sample."""
    from mmcv.transforms import Compose

    pixels = np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(np.ones(size[::-1], np.uint8)).save(tmp_path / "mask.png")
    recipe = RECIPES["segmentation"].model_copy(update={"resize": (300, 70), "size_divisor": divisor})
    mm = load_mm()
    with mm.scope("segmentation"):
        pipeline = Compose(dense_config.eval_pipeline(recipe, 3))
        found = pipeline(
            {
                "img_path": str(tmp_path / "image.png"),
                "seg_map_path": str(tmp_path / "mask.png"),
                "reduce_zero_label": True,
                "seg_fields": [],
            }
        )
    return pixels, found["inputs"].permute(1, 2, 0).numpy()[..., ::-1], found["data_samples"]


@pytest.mark.parametrize("divisor", [None, 32, 24, 1])
@pytest.mark.parametrize("size", [(91, 50), (50, 91), (64, 64), (400, 33), (17, 3)])
def test_evaluation_images_are_aligned_in_two_steps(tmp_path, size, divisor):
    width, height = size
    scale = min(300 / max(size), 70 / min(size))
    middle = int(width * scale + 0.5), int(height * scale + 0.5)
    expected = middle if divisor is None else tuple(-(-side // divisor) * divisor for side in middle)
    pixels, found, sample = evaluation_input(tmp_path, size, divisor)
    assert found.shape == (*expected[::-1], 3)
    assert sample.img_shape == expected[::-1]
    assert sample.ori_shape == (height, width)
    assert sample.scale_factor == pytest.approx((expected[0] / width, expected[1] / height))
    assert sample.gt_sem_seg.data.shape == (1, height, width)
    interpolated = bilinear(np.rint(bilinear(pixels, *middle)), *expected)
    # OpenCV rounds in fixed point twice.
    assert np.abs(found - interpolated).max() <= 2


def test_aligned_predictions_have_the_size_of_the_image(tmp_path):
    from mmengine.dataset import pseudo_collate

    run = tiny_run(tmp_path, "segmentation")
    mm = load_mm()
    with mm.scope("segmentation"):
        model = dense_model.create_model(run).eval()
        seen = []
        model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
        _, image, sample = evaluation_input(tmp_path, (91, 50), 32)
        batch = pseudo_collate(
            [{"inputs": torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1), "data_samples": sample}]
        )
        with torch.inference_mode():
            (found,) = model.test_step(batch)
    assert seen == [(96, 128)]
    assert found.pred_sem_seg.data.shape == (1, 50, 91)


def test_detection_pads_batches_to_multiples_of_32():
    stock = load_mm().stock_model("detection")
    assert stock["data_preprocessor"]["pad_size_divisor"] == 32
    assert (
        dense_config.fill_model(stock, CATALOG["pvt_tiny"], "detection", 80, [64, 128, 320, 512])[
            "data_preprocessor"
        ]["pad_size_divisor"]
        == 32
    )


def test_names_of_ade20k_are_those_of_mmseg():
    load_mm()
    from mmseg.datasets import ADE20KDataset

    assert list(ade20k_classes()) == [name.strip() for name in ADE20KDataset.METAINFO["classes"]]


def xavier_bound(weight: torch.Tensor) -> float:
    """Glorot and Bengio's bound of the uniform distribution, for (out, in, ...) and transposed weights alike."""
    field = weight[0, 0].numel()
    return (6 / (field * (weight.shape[0] + weight.shape[1]))) ** 0.5


@pytest.mark.parametrize(("task", "neck"), [("segmentation", "token_fpn"), ("detection", "fpn")])
def test_every_new_layer_may_start_from_xavier(task, neck):
    recipe = RECIPES[task].model_copy(update={"neck": neck, "new_layer_init": "xavier"})
    model = dense_model.build_dense_model(TINY, task, 3, recipe)
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            continue
        if parameter.ndim > 1:
            bound = xavier_bound(parameter)
            assert parameter.abs().max() <= bound, name
            # The standard deviation of a uniform distribution is its bound / sqrt(3).
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    dense_model.initialise_new_layers(model)
    assert all(torch.equal(backbone[name], value) for name, value in model.backbone.state_dict().items())


def test_the_published_initialisation_is_not_part_of_a_fingerprint():
    recipe = RECIPES["segmentation"]
    assert recipe.new_layer_init == "published_code"
    assert "new_layer_init" not in recipe.identity()
    changed = recipe.model_copy(update={"new_layer_init": "xavier", "size_divisor": 32}).identity()
    assert changed.keys() - recipe.identity().keys() == {"new_layer_init", "size_divisor"}
