"""Published weights of classifiers as the start of dense backbones, in every layout that they are published in."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import timm
import torch

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.errors import Problem, UserError
from hafabench.models import create
from hafabench.models.checkpoints import starting
from hafabench.models.checkpoints.classifier import undecorated
from hafabench.models.checkpoints.published import fit_backbone
from hafabench.models.registry import family_of
from tests.support.mmdet_weights import mmdet_state
from tests.support.published_names import published
from tests.support.small_models import small_options

TINY = ModelSpec("tiny_resnet", "resnet", "tiny", "test_resnet")
# The ResNets of the catalog have the same names, but no small version.
DENSE = [TINY, *(spec for spec in CATALOG.values() if spec.family in ("pvt", "pvt_v2", "swin"))]


def pair(spec: ModelSpec, **kwargs):
    """A classifier, and a dense backbone of the same model with other weights."""
    options = small_options(spec.name) if spec.name in CATALOG else {}
    return create(spec, num_classes=7, **options, **kwargs), create(spec, dense=True, **options)


def shared(classifier, backbone) -> dict[str, torch.Tensor]:
    names = undecorated(backbone).state_dict()
    return {name: classifier.state_dict()[name] for name in names}


def assert_fits(fitted, expected) -> None:
    assert fitted.state.keys() == expected.keys()
    assert all(torch.equal(fitted.state[name], value) for name, value in expected.items())


@pytest.mark.parametrize("spec", DENSE, ids=lambda spec: spec.name)
def test_every_model_starts_from_a_classifier_with_the_names_of_this_project_and_timm(spec):
    classifier, backbone = pair(spec)
    fitted = fit_backbone(backbone, classifier.state_dict(), spec, {})
    assert_fits(fitted, shared(classifier, backbone))
    (sentence,) = fitted.dropped
    assert sentence.startswith("dropped, because only classification uses it: ")


def test_every_family_with_a_feature_pyramid_is_tested():
    families = {family for family in {spec.family for spec in CATALOG.values()} if _has_pyramid(family)}
    assert families == {spec.family for spec in DENSE}


def _has_pyramid(name: str) -> bool:
    family = family_of(next(spec for spec in CATALOG.values() if spec.family == name))
    own = family.own is not None and family.own.dense
    return own or (family.timm is not None and family.timm.pyramid_levels is not None)


def test_the_published_names_of_pvt():
    classifier, backbone = pair(CATALOG["pvt_tiny"])
    weights = {f"module.{name}": value for name, value in published(classifier.state_dict()).items()}
    fitted = fit_backbone(backbone, weights, CATALOG["pvt_tiny"], {})
    assert_fits(fitted, shared(classifier, backbone))
    assert fitted.naming == "names of the published PVT code"


def test_the_names_of_mmdets_pvt():
    backbone = create("pvt_tiny", dense=True, **small_options("pvt_tiny"))
    fitted = fit_backbone(backbone, mmdet_state(backbone), CATALOG["pvt_tiny"], {})
    expected = backbone.state_dict()
    assert torch.equal(fitted.state["stage4.pos_embed"][:, 1:], expected.pop("stage4.pos_embed")[:, 1:])
    assert all(torch.equal(fitted.state[name], value) for name, value in expected.items())


def test_the_published_names_of_swin():
    """Microsoft's code has patch merging at the end of a stage, timm at the beginning of the next one."""
    spec = CATALOG["swin_tiny"]
    classifier, backbone = pair(spec)

    def theirs(name: str) -> str:
        name = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
        return name.replace("head.fc.", "head.")

    weights = {theirs(name): value for name, value in classifier.state_dict().items()}
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    assert_fits(fit_backbone(backbone, weights, spec, {}), shared(classifier, backbone))


def test_names_with_the_prefix_of_openmmlabs_classifiers():
    classifier, backbone = pair(TINY)
    weights = {f"backbone.{name}": value for name, value in classifier.state_dict().items() if "fc." not in name}
    weights |= {"head.fc.weight": torch.zeros(7, 128), "head.fc.bias": torch.zeros(7)}
    fitted = fit_backbone(backbone, weights, TINY, {})
    assert_fits(fitted, shared(classifier, backbone))
    assert fitted.dropped == ("dropped, because only classification uses it: head.fc.weight, head.fc.bias",)


def test_a_backbone_alone_has_nothing_to_drop():
    _, backbone = pair(TINY)
    weights = timm.create_model("test_resnet", num_classes=0).state_dict()
    assert fit_backbone(backbone, weights, TINY, {}).dropped == ()


def test_position_embeddings_of_another_image_size_are_resized():
    spec = CATALOG["pvt_tiny"]
    classifier, backbone = pair(spec, img_size=64)
    fitted = fit_backbone(backbone, published(classifier.state_dict()), spec, {})
    own = backbone.state_dict()
    assert classifier.state_dict()["stage1.pos_embed"].shape != own["stage1.pos_embed"].shape
    assert {name: value.shape for name, value in fitted.state.items()} == {n: v.shape for n, v in own.items()}


def test_renames_are_prefixes_of_the_classifiers_names():
    spec = CATALOG["pvt_tiny_hafa"]
    classifier, backbone = pair(spec)
    weights = {n.replace("stage2.merger.offset", "patch_embed2.off"): v for n, v in classifier.state_dict().items()}
    with pytest.raises(UserError, match=r"--rename patch_embed2\.off=stage2\.merger\.offset"):
        fit_backbone(backbone, weights, spec, {})
    fitted = fit_backbone(backbone, weights, spec, {"patch_embed2.off": "stage2.merger.offset"})
    assert_fits(fitted, shared(classifier, backbone))


@pytest.mark.parametrize("other", ["resnet18", "pvt_tiny_hafa"])
def test_weights_of_another_model_are_refused(other):
    _, backbone = pair(CATALOG["pvt_tiny"])
    weights = create(other, **small_options(other)).state_dict()
    with pytest.raises(UserError, match=r"missing in the file: .*\n?unknown to the model: "):
        fit_backbone(backbone, weights, CATALOG["pvt_tiny"], {})


def test_a_detector_is_no_classifier():
    classifier, backbone = pair(TINY)
    weights = {f"backbone.{name}": value for name, value in classifier.state_dict().items()}
    with pytest.raises(UserError, match=r"unknown to the model: neck\.lateral_convs\.0\.conv\.weight"):
        fit_backbone(backbone, weights | {"neck.lateral_convs.0.conv.weight": torch.zeros(1)}, TINY, {})


def test_suggested_renames_name_the_key_of_an_experiment_file():
    run = SimpleNamespace(model=CATALOG["pvt_tiny"])
    named = starting._named(run, Problem("a.pth", "", "renames that the shapes suggest: --rename a=b"))
    assert str(named).endswith("--rename a=b; in an experiment file, write each as `rename: {OLD: NEW}`")
    assert "rename" not in str(starting._named(run, Problem("a.pth", "", "no such file")))
