"""Models that drop tokens: sizes, numbers of kept tokens, and training masks equivalent to evaluation."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from hafabench.config.catalog import CATALOG
from hafabench.config.keep_rates import describe_rates, keep_rates_problem, scheduled, tokens_to_keep
from hafabench.errors import UserError
from hafabench.measure.complexity import count
from hafabench.models import create
from hafabench.models.lvvit import MaskedAttention
from hafabench.models.token_pruning import KeepPredictor

LV, SWIN = "dynamicvit_lvs_0.5", "dynamic_swin_tiny_0.25"
SMALL = {
    LV: {"depth": 4, "embed_dim": 48, "num_classes": 3},
    SWIN: {"depths": (1, 1, 5, 1), "embed_dim": 24, "num_classes": 3},
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def image(batch: int, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Certain(nn.Module):
    """Keeps the first ``tokens`` of those it is shown with a certainty that no Gumbel noise overturns."""

    def __init__(self, tokens: int):
        super().__init__()
        self.tokens = tokens

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        sign = torch.where(torch.arange(x.shape[1]) < self.tokens, 1.0, -1.0)
        return (sign[:, None] * torch.tensor([100.0, -100.0])).expand(x.shape[0], -1, -1)


# -- rates ----------------------------------------------


def test_schedules_by_name():
    assert scheduled("constant", 0.25) == (0.25, 0.25, 0.25)
    assert scheduled("powers", 0.5) == (0.5, 0.25, 0.125)
    assert scheduled("clamped", 0.25) == (0.25, 0.05, 0.0)
    assert [tokens_to_keep(rate, 196) for rate in scheduled("powers", 0.5)] == [98, 49, 24]
    assert [tokens_to_keep(rate, 196) for rate in scheduled("clamped", 0.25)] == [49, 9, 0]
    assert describe_rates(CATALOG[SWIN].keep) == "constant 0.25 (0.25, 0.25, 0.25)"
    assert describe_rates((0.75, 0.5, 0.25)) == "0.75, 0.5, 0.25"


def test_the_published_schedule_at_a_quarter_is_refused():
    assert "rate 3 is -0.15" in keep_rates_problem(scheduled("steps", 0.25))
    with pytest.raises(UserError, match=r"rate 3 is -0\.15, but a keep rate is between 0 and 1"):
        create(SWIN, keep=scheduled("steps", 0.25), **SMALL[SWIN])
    with pytest.raises(UserError, match="expected 3 rates, one per predictor, found 2"):
        create(LV, keep=(0.5, 0.5), **SMALL[LV])
    with pytest.raises(UserError, match="token classifier needs a token"):
        create(LV, keep=(0.5, 0.5, 0.0), **SMALL[LV])


def test_keep_rates_belong_to_models_that_drop_tokens():
    with pytest.raises(UserError, match="family 'pvt' drops no tokens"):
        create("pvt_tiny", keep=(0.5, 0.5, 0.5))


# -- sizes ----------------------------------------------


def test_parameters_part_by_part():
    with torch.device("meta"):
        teacher, student, swin = create("lvvit_small"), create(LV), create(SWIN)
    assert parameters(teacher.patch_embed) == 1_656_768
    assert teacher.pos_embed.numel() + teacher.cls_token.numel() == 76_032
    assert [parameters(block) for block in teacher.blocks] == [1_478_016] * 16
    assert (parameters(teacher.head), parameters(teacher.aux_head)) == (385_000, 385_000)
    assert parameters(teacher) == 26_151_824
    assert parameters(student) == 26_875_574
    assert [parameters(predictor) for predictor in student.predictors] == [241_250] * 3
    assert [parameters(path) for path in swin.fast_paths] == [148_608] * 5
    # Counted with the patch merging behind it, as Swin's authors build a stage; timm has it in front.
    merging = [*(parameters(stage.downsample) for stage in swin.layers[1:]), 0]
    stages = [parameters(stage.blocks) + behind for stage, behind in zip(swin.layers, merging, strict=True)]
    stages[2] += parameters(swin.predictors) + parameters(swin.fast_paths)
    assert stages == [299_190, 1_188_204, 13_308_462, 14_183_856]
    assert parameters(swin) == 29_755_144


def test_multiply_accumulates_of_swin_follow_the_tokens_kept():
    """A kept token costs the feed-forward, a dropped one a linear layer: 2 x 384 x 1536 against 384 x 384."""
    cost = {}
    for rates in ((0.25, 0.25, 0.25), (0.75, 0.5, 0.25), (0.25, 0.05, 0.0), (1.0, 1.0, 1.0)):
        with torch.device("meta"):
            model = create(SWIN, keep=rates)
        k1, k2, k3 = (tokens_to_keep(rate, 196) for rate in rates)
        cost[k1 + k2 + 3 * k3] = count(model.train(), (224, 224)).gmacs
        # Operations are counted in evaluation mode, which drops tokens, and the model's mode is restored.
        assert model.training
    tokens = sorted(cost)
    for fewer, more in itertools.pairwise(tokens):
        assert (cost[more] - cost[fewer]) / (more - fewer) == pytest.approx(2 * 384 * 1536e-9 - 384 * 384e-9)
    assert cost[5 * 49] == pytest.approx(3.893, rel=0.006)


@pytest.mark.parametrize(("rate", "expected"), [(0.5, 3.801), (0.7, 4.664)])
def test_multiply_accumulates_of_lvvit_by_hand(rate, expected):
    counts = [196, *(tokens_to_keep(share, 196) for share in scheduled("powers", rate))]
    dim = 384
    macs = 112**2 * (147 + 2 * 576) * 64 + 196 * 64 * 64 * dim
    for tokens in counts:
        tokens += 1
        macs += 4 * (tokens * (4 * dim * dim + 6 * dim * dim) + 2 * tokens * tokens * dim)
    macs += sum(n * (dim * dim + dim * dim // 2 + dim * dim // 8 + dim // 2) for n in counts[:3])
    macs += (1 + counts[3]) * dim * 1000
    with torch.device("meta"):
        model = create(LV, keep=scheduled("powers", rate))
    assert count(model, (224, 224)).gmacs == pytest.approx(macs / 1e9, rel=1e-6)
    assert macs / 1e9 == pytest.approx(expected, rel=0.005)


# -- evaluation ----------------------------------------------


@torch.no_grad()
def test_lvvit_keeps_98_49_and_24_tokens():
    model = create(LV, **SMALL[LV]).eval()
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(image(1, 224))
    assert seen == [197, 99, 50, 25]


@torch.no_grad()
def test_swin_sends_a_quarter_of_its_tokens_through_the_feed_forward():
    model = create(SWIN, **SMALL[SWIN]).eval()
    slow, fast = [], []
    for block, path in zip(model.layers[2].blocks[1:], model.fast_paths, strict=True):
        block.mlp.register_forward_pre_hook(lambda _, inputs: slow.append(inputs[0].shape[1]))
        path.register_forward_pre_hook(lambda _, inputs: fast.append(inputs[0].shape[1]))
    model(image(1, 224))
    assert (slow, fast) == ([49] * 4, [147] * 4)


@torch.no_grad()
def test_swin_that_keeps_every_token_is_swin():
    model = create(SWIN, keep=(1.0, 1.0, 1.0), **SMALL[SWIN]).eval()
    swin = create("swin_tiny", **SMALL[SWIN]).eval()
    swin.load_state_dict({name: model.state_dict()[name] for name in swin.state_dict()})
    torch.testing.assert_close(model(image(2)), swin(image(2)))


@torch.no_grad()
def test_no_token_may_be_left_to_swins_feed_forward():
    assert create(SWIN, keep=scheduled("clamped", 0.25), **SMALL[SWIN]).eval()(image(2)).isfinite().all()


@torch.no_grad()
def test_logits_are_the_class_tokens_and_half_the_largest_patch_tokens():
    model = create("lvvit_small", depth=2, embed_dim=48, num_classes=3).eval()
    features = model.forward_features(image(2))
    expected = model.head(features[:, 0]) + 0.5 * model.aux_head(features[:, 1:]).max(dim=1).values
    torch.testing.assert_close(model(image(2)), expected)


# -- training ----------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", [LV, SWIN])
def test_masks_and_ranking_are_the_same_model(name):
    """Of 16 tokens half are kept; on Swin by all predictors alike, as its two streams are exact for that alone."""
    rates = (0.5, 0.25, 0.125) if name == LV else (0.5, 0.5, 0.5)
    model = create(name, keep=rates, drop_path_rate=0.0, **SMALL[name]).eval()
    counts = [tokens_to_keep(rate, 16) for rate in rates]
    for index, tokens in enumerate(counts):
        model.predictors[index] = Certain(tokens)
    masked = model.forward_masked(image(2))
    assert [decision.sum(dim=1).tolist() for decision in masked.decisions] == [[n, n] for n in counts]
    features = model.forward_features(image(2))
    logits = model.classify(features)[0] if name == LV else model.forward_head(features)
    # LV-ViT's masked attention leaves a millionth of the weight where it should leave none.
    torch.testing.assert_close(masked.logits, logits, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", [LV, SWIN])
def test_the_logits_alone_train_the_predictors(name):
    model = create(name, drop_path_rate=0.0, **SMALL[name]).train()
    masked = model.forward_masked(image(4))
    assert all(set(decision.unique().tolist()) <= {0.0, 1.0} for decision in masked.decisions)
    masked.logits.square().sum().backward()
    for predictor in model.predictors:
        assert predictor.fc3.weight.grad.abs().max() > 0
    assert all(parameter.grad.isfinite().all() for parameter in model.predictors.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", [LV, SWIN])
def test_a_batch_of_two_is_two_images(name):
    """The number of Swin's two streams must not be taken for the size of a batch."""
    model = create(name, **SMALL[name]).eval()
    for index, tokens in enumerate((8, 5, 2)):
        model.predictors[index] = Certain(tokens)
    together = model.forward_masked(image(2)).logits
    alone = torch.cat([model.forward_masked(one).logits for one in image(2).split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_dropped_tokens_attend_only_to_themselves():
    attention = MaskedAttention(16, 2)
    x, keep = 3 * torch.randn(1, 6, 16), torch.tensor([[1.0, 1, 0, 1, 0, 1]])
    masked = attention(x, keep)
    remaining = [0, 1, 3, 5]
    torch.testing.assert_close(masked[:, remaining], attention(x[:, remaining]), rtol=0, atol=1e-4)
    for dropped in (2, 4):
        torch.testing.assert_close(
            masked[:, dropped], attention(x[:, [*remaining, dropped]])[:, -1], rtol=0, atol=1e-4
        )
    torch.testing.assert_close(attention(x, torch.ones(1, 6)), attention(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_lvvit_loses_tokens_for_good_and_its_predictors_know():
    model = create(LV, **SMALL[LV]).train()
    known = []
    for predictor in model.predictors:
        predictor.register_forward_pre_hook(lambda _, inputs: known.append(inputs[1]))
    first, second, third = model.forward_masked(image(4, 96)).decisions
    assert [present.tolist() for present in known] == [
        torch.ones_like(first).tolist(),
        first.tolist(),
        second.tolist(),
    ]
    assert (second <= first).all() and (third <= second).all()
    assert first.sum() > second.sum() > third.sum() > 0


@torch.no_grad()
def test_the_mean_that_predictors_see_leaves_dropped_tokens_out():
    predictor = KeepPredictor(16)
    x = torch.randn(1, 5, 16)
    fewer = predictor(x[:, :3])
    torch.testing.assert_close(predictor(x, torch.tensor([[1.0, 1, 1, 0, 0]]))[:, :3], fewer)
    assert not torch.allclose(predictor(x)[:, :3], fewer)
    torch.testing.assert_close(predictor(x).exp().sum(-1), torch.ones(1, 5))
    # Small images may lose every token by chance.
    assert predictor(x, torch.zeros(1, 5)).isfinite().all()
