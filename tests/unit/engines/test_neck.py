"""The token pyramid equals an FPN except for the step out of a clustered stage."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hafabench.engines.dense.model import load_mm
from hafabench.engines.dense.neck import TokenFPN
from hafabench.models.hafa.tokens import ClusterTable, Tokens

CHANNELS = [4, 6, 8, 10]


def grid_stages(side: int = 32) -> list[Tokens]:
    # The odd size in the middle: up-sampling then is no plain doubling.
    sizes = [(side, side + 2), (side // 2, side // 2 + 1), (side // 4, side // 4), (side // 8, side // 8)]
    return [Tokens.from_map(torch.randn(2, c, *size)) for c, size in zip(CHANNELS, sizes, strict=True)]


def clustered(stage: Tokens, channels: int, tokens: int, grid: tuple[int, int]) -> Tokens:
    """Random clusters of the positions of ``stage``, every cluster with at least one position."""
    positions = stage.x.shape[1]
    index = torch.stack([torch.randperm(positions) % tokens for _ in range(2)])
    return Tokens(torch.randn(2, tokens, channels), grid, ClusterTable(index, stage.grid, tokens))


@pytest.mark.parametrize(("task", "levels"), [("segmentation", 4), ("detection", 5)])
def test_on_grids_it_is_the_libraries_fpn(task, levels):
    torch.manual_seed(0)
    mm = load_mm()
    config = {"type": "FPN", "in_channels": CHANNELS, "out_channels": 12, "num_outs": levels}
    with mm.scope(task):
        library = mm.MODELS.build(config)
    own = TokenFPN(CHANNELS, 12, levels)
    # mmcv wraps each convolution, hence one name more.
    own.load_state_dict({name.replace(".conv.", "."): value for name, value in library.state_dict().items()})
    stages = grid_stages()

    found = own(stages)
    expected = library([tokens.to_map() for tokens in stages])

    assert len(found) == len(expected) == levels
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_parameters_begin_like_the_libraries():
    torch.manual_seed(0)
    neck = TokenFPN([64, 512], 256, 2)
    bound = (6 / (512 + 256)) ** 0.5
    weight = neck.lateral_convs[1].weight
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all(not convolution.bias.any() for convolution in [*neck.lateral_convs, *neck.fpn_convs])


def test_every_position_takes_its_cluster_token_after_the_lateral():
    torch.manual_seed(0)
    stages = grid_stages()
    stages[3] = clustered(stages[2], CHANNELS[3], 16, (4, 4))
    neck = TokenFPN(CHANNELS, 12, 4).double()
    stages = [tokens.with_x(tokens.x.double()) for tokens in stages]

    lateral = [conv.weight[:, :, 0, 0] for conv in neck.lateral_convs]
    fine = stages[2].x @ lateral[2].T + neck.lateral_convs[2].bias
    coarse = stages[3].x @ lateral[3].T + neck.lateral_convs[3].bias
    for sample in range(2):
        for position in range(64):
            fine[sample, position] += coarse[sample, stages[3].table.index[sample, position]]
    expected = F.conv2d(
        fine.transpose(1, 2).reshape(2, 12, 8, 8), neck.fpn_convs[2].weight, neck.fpn_convs[2].bias, padding=1
    )

    found = neck(stages)

    torch.testing.assert_close(found[2], expected, rtol=1e-10, atol=1e-10)
    assert found[3].shape == (2, 12, 4, 4)


def test_clusters_of_clusters_hand_down_to_clusters():
    """Stages 3 and 4 both clustered (SIA-SIA): a token of stage 3 takes the token of stage 4 that it became."""
    torch.manual_seed(0)
    stages = grid_stages()
    third = clustered(stages[1], CHANNELS[2], 64, (8, 8))
    became = torch.randint(0, 16, (2, 64))
    became[:, :16] = torch.arange(16)
    stages[2:] = [third, Tokens(torch.randn(2, 16, CHANNELS[3]), (4, 4), third.table.merge(became, 16))]
    neck = TokenFPN(CHANNELS, 12, 4)

    lateral = [F.linear(t.x, c.weight.flatten(1), c.bias) for t, c in zip(stages, neck.lateral_convs, strict=True)]
    expected = lateral[2] + lateral[3].gather(1, became[..., None].expand(-1, -1, 12))
    found = neck(stages)

    torch.testing.assert_close(found[2], neck.fpn_convs[2](third.with_x(expected).to_map()), rtol=1e-4, atol=1e-4)


def test_gradient_reaches_every_parameter_and_token():
    torch.manual_seed(0)
    stages = grid_stages()
    stages[3] = clustered(stages[2], CHANNELS[3], 16, (4, 4))
    stages = [tokens.with_x(tokens.x.requires_grad_()) for tokens in stages]
    neck = TokenFPN(CHANNELS, 12, 4)
    # Only the finest level is used: what reaches the clusters came down the pyramid.
    neck(stages)[0].square().sum().backward()
    assert all((tokens.x.grad != 0).any() for tokens in stages)
    assert all(conv.weight.grad.any() for conv in neck.lateral_convs)
