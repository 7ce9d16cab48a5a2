"""What is never rounded: clusters, sampling points, means and keep decisions under autocast and in half models."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from hafabench.models import create
from hafabench.models.blocks import _attend_with_bias
from hafabench.models.hafa import LocalAdaptiveAggregation, SemanticInformationAggregation, Tokens, clustering, sia
from hafabench.models.hafa.clustering import dpc_knn
from hafabench.models.hafa.tokens import ClusterTable
from hafabench.models.lvvit import MaskedAttention
from hafabench.models.pyramid import resize_positions
from hafabench.models.token_pruning import KeepPredictor, ranked
from tests.support.small_models import SMALL, small_options

HALF = [torch.bfloat16, torch.float16]
half_types = pytest.mark.parametrize("dtype", HALF, ids=["bf16", "fp16"])
# One small model per combination of parts that must not be rounded.
MODELS = (
    "pvt_tiny_hafa",
    "pvt_tiny_hafa_paper",
    "pvt_v2_b1_laa_sia_sia",
    "pvt_v2_b1_laa_laa_sia",
    "swin_tiny_hafa",
    "dynamicvit_lvs_0.5",
    "dynamic_swin_tiny_0.25",
)


@pytest.fixture(autouse=True)
def _seed_and_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def autocast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", dtype)


def grid_tokens(side: int, channels: int, batch: int = 2) -> Tokens:
    return Tokens.from_map(torch.randn(batch, channels, side, side))


def adjusted_rand_index(first: torch.Tensor, second: torch.Tensor) -> float:
    """Agreement of two clusterings (N,): 1 for equal ones, about 0 for independent ones."""
    count = len(first)
    together = torch.zeros(int(first.max()) + 1, int(second.max()) + 1, dtype=torch.double)
    together.index_put_((first, second), torch.ones(count, dtype=torch.double), accumulate=True)
    pairs, rows, columns = (
        (n * (n - 1) / 2).sum().item() for n in (together, together.sum(dim=1), together.sum(dim=0))
    )
    expected = rows * columns / (count * (count - 1) / 2)
    return (pairs - expected) / ((rows + columns) / 2 - expected)


# -- clustering ----------------------------------------------


@half_types
# From 23 x 23 tokens on, distances are computed in blocks of rows.
@pytest.mark.parametrize("count", [196, 600])
def test_autocast_does_not_change_clusters(dtype, count):
    x = torch.randn(2, count, 32)
    expected = dpc_knn(x, 49, 5)
    with autocast(dtype):
        assert torch.equal(dpc_knn(x, 49, 5), expected)


@pytest.mark.slow
def test_autocast_does_not_change_clusters_in_compiled_code():
    x = torch.randn(2, 64, 16)
    expected = dpc_knn(x, 16, 5)
    compiled = torch.compile(lambda tokens: dpc_knn(tokens, 16, 5), fullgraph=True, backend="aot_eager")
    with autocast(torch.bfloat16):
        assert torch.equal(compiled(x), expected)


def test_double_tokens_are_clustered_in_double_under_autocast():
    # The tokens differ by less than float32 resolves.
    x = 1 + 1e-9 * torch.randn(1, 30, 8, dtype=torch.double)
    expected = dpc_knn((x - 1) * 1e9, 8, 5)
    with autocast(torch.bfloat16):
        assert torch.equal(dpc_knn((x - 1) * 1e9, 8, 5), expected)
        assert dpc_knn(x, 8, 5).unique().numel() == 8


def test_products_of_distances_ignore_a_lower_matmul_precision(monkeypatch):
    seen = []
    cluster = clustering._cluster_whole
    matmul = torch.backends.mkldnn.matmul

    def spy(*arguments):
        seen.append(matmul.fp32_precision)
        return cluster(*arguments)

    monkeypatch.setattr(clustering, "_cluster_whole", spy)
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        dpc_knn(torch.randn(1, 16, 4), 4, 5)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert seen == ["ieee"]


@half_types
@pytest.mark.parametrize("key_values", ["separate", "tokens"])
def test_sia_clusters_and_merges_under_autocast_as_in_single_precision(dtype, key_values):
    module = SemanticInformationAggregation(16, 32, key_values, score_in_attention=True).eval()
    nn.init.normal_(module.token_proj.weight)
    tokens = grid_tokens(14, 16)
    with torch.no_grad():
        expected = module(tokens)
        with autocast(dtype):
            found = module(tokens)
    assert torch.equal(found.tokens.assignment, expected.tokens.assignment)
    assert torch.equal(found.context.scores, expected.context.scores)
    torch.testing.assert_close(found.tokens.x, expected.tokens.x, rtol=1e-6, atol=1e-6)


@half_types
def test_half_sia_clusters_as_a_single_one_with_the_same_weights(dtype):
    module = SemanticInformationAggregation(16, 32, "tokens", score_in_attention=True).eval().to(dtype)
    tokens = grid_tokens(14, 16)
    tokens = tokens.with_x(tokens.x.to(dtype))
    with torch.no_grad():
        found = module(tokens)
        expected = module.float()(tokens.with_x(tokens.x.float()))
    assert found.tokens.x.dtype == found.context.tokens.x.dtype == dtype
    assert found.context.scores.dtype == torch.float32
    assert torch.equal(found.tokens.assignment, expected.tokens.assignment)
    assert torch.equal(found.context.scores, expected.context.scores)
    assert torch.equal(found.tokens.x, expected.tokens.x.to(dtype))


@half_types
@pytest.mark.parametrize("name", ["pvt_tiny_hafa", "pvt_v2_b1_laa_laa_sia"])
def test_clusters_of_models_under_autocast(dtype, name, monkeypatch):
    """The blocks before SIA round its tokens, which moves few of them to another cluster."""
    model = create(name, num_classes=5, **small_options(name)).eval()
    for key, parameter in model.named_parameters():
        if "token_proj" in key:
            nn.init.normal_(parameter, std=0.3)
    seen = []

    def spy(x, clusters, k):
        seen.append((x, dpc_knn(x, clusters, k)))
        return seen[-1][1]

    monkeypatch.setattr(sia, "dpc_knn", spy)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        model(image)
        with autocast(dtype):
            model(image)
    (_, single), (tokens, rounded) = seen
    assert torch.equal(rounded, dpc_knn(tokens.float(), int(single.max()) + 1, 5))
    assert adjusted_rand_index(single[0], rounded[0]) > 0.85


@half_types
def test_scores_of_attention_are_not_rounded(dtype):
    q, k, v = (torch.randn(1, 2, 6, 8).to(dtype) for _ in range(3))
    scores = 20 + torch.rand(1, 1, 1, 6)
    exact = (q.double() @ k.double().transpose(-2, -1) / 8**0.5 + scores.double()).softmax(-1) @ v.double()
    with autocast(dtype):
        found = _attend_with_bias(q, k, v, scores)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype))


# -- sampling points ----------------------------------------------


@half_types
def test_autocast_does_not_round_offsets(dtype):
    module = LocalAdaptiveAggregation(8, 4).eval()
    nn.init.normal_(module.offset.weight)
    x = torch.randn(1, 8, 12, 12)
    expected = module.offset(x)
    with autocast(dtype):
        assert torch.equal(module.offset(x), expected)
        assert module.conv(x, expected).isfinite().all()


@half_types
def test_half_laa_samples_between_pixels_of_a_wide_map(dtype):
    # In bfloat16, the columns 256 to 299 of the map would be read at even places only.
    module = LocalAdaptiveAggregation(1, 1).eval().to(dtype)
    ramp = (torch.arange(300) % 4).to(dtype).expand(1, 1, 2, 300)
    samples = module.conv._sample(ramp, torch.zeros(1, 8, 1, 150, dtype=dtype))
    # Windows, rows and columns.
    assert torch.equal(samples.view(150, 2, 2), ramp[0, 0].view(2, 150, 2).transpose(0, 1))


# -- means, locations and positions ----------------------------------------------


@half_types
def test_means_over_positions_are_rounded_once(dtype):
    table = ClusterTable(torch.randint(0, 7, (2, 49)), (7, 7), 7)
    features = torch.randn(2, 5, 7, 7).to(dtype)
    tokens = Tokens(torch.zeros(2, 7, 5, dtype=dtype), (3, 3), table)
    found = tokens.gather_map(features)
    assert torch.equal(found, tokens.gather_map(features.float()).to(dtype))
    x = torch.randn(2, 7, 5).to(dtype)
    assert torch.equal(tokens.with_x(x).to_map(), tokens.with_x(x.float()).to_map().to(dtype))


def test_means_and_locations_of_double_tokens_are_double():
    index = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 1]])
    tokens = Tokens(torch.randn(1, 2, 3, dtype=torch.double), (3, 3), ClusterTable(index, (3, 3), 2))
    tokens.gather_map(torch.ones(1, 3, 3, 3))  # The weights of single precision are kept apart.
    found = tokens.gather_map(torch.ones(1, 1, 3, 3, dtype=torch.double)).flatten()
    exact = torch.tensor([4, 5], dtype=torch.double)
    torch.testing.assert_close(found, exact / (exact + 1e-6), rtol=1e-14, atol=0)
    assert tokens.centres((3, 3)).dtype == torch.double


def test_locations_do_not_follow_the_default_dtype():
    tokens = Tokens(torch.zeros(1, 70 * 70, 1), (70, 70))
    expected = tokens.centres((70, 70))
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(tokens.centres((70, 70)), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@half_types
def test_position_embeddings_are_interpolated_in_single_precision(dtype):
    positions = torch.randn(1, 16, 4).to(dtype)
    found = resize_positions(positions, (4, 4), (7, 5))
    assert torch.equal(found, resize_positions(positions.float(), (4, 4), (7, 5)).to(dtype))


# -- keep decisions ----------------------------------------------


@half_types
@pytest.mark.parametrize("masked", [False, True], ids=["all tokens", "masked"])
def test_autocast_does_not_change_keep_decisions(dtype, masked):
    predictor = KeepPredictor(32)
    x = torch.randn(2, 196, 32)
    present = (torch.rand(2, 196) > 0.5).float() if masked else None
    expected = predictor(x, present)
    with autocast(dtype):
        found = predictor(x, present)
    assert torch.equal(found, expected)
    assert torch.equal(ranked(found), ranked(expected))


@half_types
def test_half_predictor_decides_as_a_single_one_with_the_same_weights(dtype):
    predictor = KeepPredictor(32).to(dtype)
    x = torch.randn(1, 196, 32).to(dtype)
    found = predictor(x)
    assert torch.equal(found, predictor.float()(x.float()))


def test_masked_attention_of_double_tokens_is_double():
    module = MaskedAttention(16, 2).double()
    x, keep = torch.randn(1, 9, 16, dtype=torch.double), torch.ones(1, 9)
    torch.testing.assert_close(module(x, keep), module(x), rtol=1e-5, atol=1e-6)
    logits = []
    hook = torch.Tensor.exp
    torch.Tensor.exp = lambda self: logits.append(self.dtype) or hook(self)
    try:
        module(x, keep)
    finally:
        torch.Tensor.exp = hook
    assert logits == [torch.double]


# -- whole models ----------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "autocast"])
def test_models_run_in_every_precision(name, cast):
    model = create(name, num_classes=5, **small_options(name))
    image = torch.randn(2, 3, 64, 64)
    if cast != "autocast":
        model, image = getattr(model, cast)(), getattr(image, cast)()
    with autocast(torch.bfloat16) if cast == "autocast" else nullcontext():
        assert model.eval()(image[:1]).isfinite().all()
        if cast == "half":  # Training in float16 is slow on a CPU.
            return
        loss = model.train()(image).float().square().mean()
    loss.backward()
    assert loss.isfinite()


# -- values that are not finite ----------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 1)])
def test_offsets_that_are_not_finite_give_nan(value, kernel, padding):
    module = LocalAdaptiveAggregation(3, 4, kernel, padding).conv
    x, offset = torch.randn(2, 3, 8, 8), torch.randn(2, 2 * kernel**2, 4, 4)
    expected = module(x, offset)
    broken = offset.clone()
    broken[1, 3, 2, 1] = value
    broken.requires_grad_()
    for found in (module(x, broken), module._deform_on_gpu(x, broken)):
        others = torch.ones(2, 4, 4, dtype=torch.bool)
        others[1, 2, 1] = False
        torch.testing.assert_close(found.movedim(1, -1)[others], expected.movedim(1, -1)[others])
        assert found[1, :, 2, 1].isnan().all() == (abs(value) != 1e38)
        found.sum().backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("count", [36, 600])
@pytest.mark.parametrize("share", ["one", "all"])
def test_clusters_of_tokens_that_are_not_finite_exist(value, count, share):
    x = torch.randn(2, count, 4)
    sound = dpc_knn(x, 9, 5)[0]
    x[1, 3 if share == "one" else slice(None)] = value
    found = dpc_knn(x, 9, 5)
    assert torch.equal(found[0], sound)
    assert found[1].min() >= 0
    # Every cluster has its centre.
    assert sorted(set(found[1].tolist())) == list(range(9))


@pytest.mark.parametrize("name", MODELS)
def test_broken_weights_give_logits_that_are_not_finite(name):
    """A diverged training must end with its loss, not in an error of an index."""
    model = create(name, num_classes=5, **small_options(name))
    parts = ("offset.bias", "score.bias") if "hafa" in name or "laa" in name else ("fc3.bias",)
    for part in parts:
        broken = create(name, num_classes=5, **small_options(name))
        broken.load_state_dict(model.state_dict())
        for key, parameter in broken.named_parameters():
            if key.endswith(part):
                nn.init.constant_(parameter, torch.nan)
        loss = broken.train()(torch.randn(2, 3, 64, 64)).square().mean()
        loss.backward()
        assert not loss.isfinite(), part


@pytest.mark.parametrize("name", MODELS)
def test_images_that_are_not_finite_give_logits_that_are_not_finite(name):
    model = create(name, num_classes=5, **small_options(name)).eval()
    image = torch.randn(1, 3, 64, 64)
    image[0, 1, 40, 20] = torch.nan
    assert model(image).isnan().all()


def test_every_family_with_small_models_is_covered():
    from hafabench.config.catalog import CATALOG

    assert {CATALOG[name].family for name in MODELS} == set(SMALL) - {"lvvit"}
