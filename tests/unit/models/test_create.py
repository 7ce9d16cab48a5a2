"""Building models by name or specification: query modes, models of timm, refusals, weights, compilation."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import pytest
import timm
import torch

from hafabench.config.catalog import CATALOG, MERGER_FAMILIES, ModelSpec, derive, merger_problem
from hafabench.errors import UserError
from hafabench.models import build_model, create, load_classifier

HAFA = ("grid", "laa", "laa", "sia")
NARROW = {"depths": (1, 1, 1, 2), "embed_dims": (16, 32, 80, 128)}
SMALL = {"pvt": NARROW, "pvt_v2": NARROW, "swin": {"depths": (1, 1, 1, 2), "embed_dim": 24}}
BASES = {"pvt": "pvt_tiny", "pvt_v2": "pvt_v2_b1_hafa", "swin": "swin_tiny_hafa"}
COMBINATIONS = [
    (family, mergers)
    for family in MERGER_FAMILIES
    for mergers in itertools.product(("grid",), *[("grid", "conv", "laa", "sia")] * 3)
    if mergers != ("grid",) * 4 and merger_problem(family, mergers) is None
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "mergers"), COMBINATIONS, ids=[f"{family}-{'-'.join(mergers[1:])}" for family, mergers in COMBINATIONS]
)
def test_every_combination_of_mergers(family, mergers):
    model = create(BASES[family], mergers=mergers, num_classes=3, **SMALL[family]).eval()
    assert model(torch.randn(1, 3, 65, 97)).shape == (1, 3)
    assert [tokens.assignment is not None for tokens in model.forward_tokens(torch.randn(1, 3, 33, 47))] == [
        merger == "sia" for merger in mergers
    ]


@pytest.mark.parametrize("family", MERGER_FAMILIES)
@pytest.mark.parametrize(("query_mode", "fidelity"), [("qkv", "published_code"), ("q", "paper"), ("qkv", "paper")])
def test_every_query_mode_and_fidelity_trains_every_parameter(family, query_mode, fidelity):
    changes = {"mergers": HAFA, "query_mode": query_mode, "fidelity": fidelity}
    model = create(BASES[family], **changes, num_classes=3, drop_path_rate=0.0, **SMALL[family])
    model(torch.randn(2, 3, 96, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # qkv has no key/value path, so its models are the same for every fidelity.
    encodings = [name for name, _ in model.named_modules() if name.endswith("_encoding")]
    assert bool(encodings) == (fidelity == "paper" and query_mode == "q")


@torch.no_grad()
def test_score_enters_the_attention_on_pvt_v2_only():
    for family, changes in (("pvt", False), ("pvt_v2", True)):
        model = create(BASES[family], mergers=HAFA, num_classes=3, **SMALL[family]).eval()
        x = torch.randn(1, 3, 64, 64)
        seen = []
        attention = model.stage4.blocks[0].attn
        attention.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[1].scores))
        model(x)
        assert (seen[0] is not None) == changes


def test_as_timm_builds_it():
    spelled_out = timm.create_model("pvt_tiny", mergers=HAFA, query_mode="q", fidelity="published_code", **NARROW)
    named = timm.create_model("pvt_tiny_hafa", **NARROW)
    named.load_state_dict(spelled_out.state_dict(), strict=True)
    assert count(timm.create_model("pvt_tiny_hafa", mergers=HAFA, query_mode="qkv", **NARROW)) < count(named)


def test_specification_of_an_experiment():
    spec = derive(CATALOG["pvt_v2_b1"], "pvt_v2_b1_mixed", mergers=("grid", "laa", "conv", "sia"))
    assert build_model(spec, num_classes=3, **NARROW)(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_specification_read_from_json():
    spec = ModelSpec(**json.loads(json.dumps(asdict(CATALOG["pvt_v2_b1"]))))
    assert isinstance(build_model(spec), timm.models.PyramidVisionTransformerV2)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("swin_tiny_hafa", 30_973_491),  # LAA 2x2 and SIA put on Swin as on PVT, counted by formula.
        ("pvt_v2_b1_laa_laa_sia", 14_649_421),  # PVT-v2-B1(HAFA) under the name of Table 4.
        ("pvt_tiny_hafa_paper", 14_192_889 + 2 * (9 * 512 + 2 * 512)),  # qkv and the encodings of K and V.
    ],
)
def test_counts_that_no_reference_row_has(name, params):
    with torch.device("meta"):
        assert count(create(name)) == params


def test_laa_window_of_pvt_v2():
    with torch.device("meta"):
        assert round(count(create("pvt_v2_b1_hafa", laa_kernel=2)) / 1e6, 3) == 14.379


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b1", "swin_tiny"])
def test_library_backbones(name):
    classifier = create(name, num_classes=3)
    backbone = create(name, dense=True)
    report = load_classifier(backbone, classifier.state_dict())
    assert report.missing == ()
    assert all(key.startswith(("fc.", "head.", "norm.")) for key in report.unexpected)
    stages = backbone.eval().forward_tokens(torch.randn(1, 3, 65, 97))
    assert tuple(tokens.x.shape[2] for tokens in stages) == backbone.channels
    assert [tokens.grid for tokens in stages] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    sum(tokens.x.square().mean() for tokens in stages).backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("build", "sentence"),
        [
            (lambda: create("pvt_huge"), "unknown model 'pvt_huge'"),
            (lambda: create("dynamicvit_lvs_0.5", dense=True), "has no feature pyramid"),
            (lambda: create("pvt_tiny", mergers=("grid", "sia", "laa", "grid")), "cannot take 'laa' after 'sia'"),
            (lambda: timm.create_model("pvt_tiny", mergers=("grid", "laa")), "2 mergers given, expected 4"),
            (lambda: create("swin_tiny", mergers=("grid", "grid", "sia", "sia")), "Swin takes 'sia' on stage 4 only"),
            (lambda: create("resnet18", mergers=HAFA), "family 'resnet' takes no mergers"),
            (lambda: create("deit_tiny", dense=True), "has no feature pyramid"),
            (lambda: create("pvt_tiny_hafa", global_pool="token"), "cluster tokens have none"),
            (lambda: create("pvt_v2_b1_hafa", global_pool="token"), "global_pool='token' is not supported"),
            (lambda: create("pvt_v2_b1_hafa", laa_kernel=5), "laa_kernel=5 is not supported"),
            (lambda: create("pvt_tiny", depths=(1, 2)), "expected four positive numbers"),
            (lambda: create("pvt_tiny", embed_dims=(16, 33, 80, 128)), "expected multiples of"),
            (lambda: timm.create_model("pvt_tiny_hafa", pretrained=True), "no published weights"),
            (lambda: create("pvt_tiny", query_mode="kv"), "unknown query mode 'kv'"),
            (lambda: create("pvt_tiny", fidelity="code"), "unknown fidelity 'code'"),
        ],
    )
    def test_one_message(self, build, sentence):
        with pytest.raises(UserError, match=sentence) as caught:
            build()
        assert len(caught.value.problems) == 1

    def test_weights_of_another_model(self):
        backbone = create("pvt_tiny", dense=True, **NARROW)
        with pytest.raises(UserError, match="no name in common"):
            load_classifier(backbone, create("resnet18").state_dict())
        wider = create("pvt_tiny", depths=(1, 1, 1, 2), embed_dims=(16, 32, 80, 64))
        with pytest.raises(UserError, match="weights of another model: stage4"):
            load_classifier(backbone, wider.state_dict())


class TestClassifierIntoBackbone:
    @torch.no_grad()
    @pytest.mark.parametrize(
        ("name", "dropped"),
        [
            ("pvt_tiny", {"stage4.cls_token", "head_norm.weight", "head_norm.bias", "head.weight", "head.bias"}),
            ("pvt_tiny_hafa", {"head.weight", "head.bias"}),
        ],
    )
    def test_only_the_head_is_left_over(self, name, dropped):
        classifier = create(name, num_classes=3, **NARROW).eval()
        backbone = create(name, dense=True, **NARROW).eval()
        report = load_classifier(backbone, classifier.state_dict())
        assert report.missing == ()
        assert set(report.unexpected) == dropped
        x = torch.randn(1, 3, 64, 96)
        if name == "pvt_tiny_hafa":
            tokens = backbone.forward_tokens(x)[-1].x
            torch.testing.assert_close(tokens.mean(1), classifier.forward_head(classifier.forward_features(x), True))
        for found, expected in zip(backbone.forward_tokens(x)[:3], classifier.forward_tokens(x)[:3], strict=True):
            assert torch.equal(found.x, expected.x)

    def test_position_embeddings_of_another_image_size_are_resized(self):
        classifier = create("pvt_tiny", num_classes=3, img_size=64, **NARROW)
        backbone = create("pvt_tiny", dense=True, img_size=128, **NARROW)
        assert load_classifier(backbone, classifier.state_dict()).missing == ()
        assert backbone.stage4.pos_embed.shape == (1, 17, 128)
        # The class token's row stays, and so do the corners of the grids.
        for stage, rows in (("stage4", [0, 1, -1]), ("stage1", [0, -1])):
            found, given = (model.get_submodule(stage).pos_embed[:, rows] for model in (backbone, classifier))
            torch.testing.assert_close(found, given)


def test_recomputing_blocks_gives_the_same_gradients():
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create("pvt_tiny_hafa", num_classes=3, **NARROW)
        model.set_grad_checkpointing(enable)
        model(torch.ones(2, 3, 64, 64)).square().sum().backward()
        gradients.append(model.stage1.merger.proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "name",
    [
        "pvt_tiny_hafa",
        "pvt_v2_b1_hafa",
        "pvt_v2_b1_sia_sia_sia",
        "swin_tiny_hafa",
    ],
)
@pytest.mark.slow
def test_compiles_as_one_graph_with_its_gradient(name):
    model = create(name, num_classes=3, drop_path_rate=0.0, **SMALL[CATALOG[name].family])
    x = torch.randn(2, 3, 64, 64)
    model(x).square().sum().backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    # Compiled in training too: batch statistics move, gradients must not differ.
    model.zero_grad()
    torch.compile(model, backend="aot_eager", fullgraph=True)(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-3, atol=1e-4, msg=key)
