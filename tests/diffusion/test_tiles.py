"""Tiles: the weights of their pixels, equality with the whole, seams, memory, and what cannot be tiled."""

import pytest
import torch
import torch.nn.functional as F

from unclip.diffusion import Clip, Draw, Estimate, Levels, cosine, ddim, spread, walk
from unclip.diffusion.tiles import Tiled
from unclip.errors import UnclipError
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.unet import UNetConfig

LEVELS = Levels.from_betas(cosine(1000))


def blur(x, at, given):
    """A denoiser that reaches 3 pixels far and sees the condition."""
    return Estimate(F.conv2d(x, torch.ones(1, 1, 7, 7) / 49, padding=3) + 0.5 * given)


@pytest.mark.parametrize(("halo", "blend"), [(0, 0), (4, 0), (0, 8), (4, 8)])
@pytest.mark.parametrize("length", [8, 32, 36, 52, 100, 128, 132])
def test_weights_add_up_to_one_and_tiles_are_no_larger_than_asked(halo, blend, length):
    total = torch.zeros(length)
    for where, weight in Tiled(blur, 32, halo, blend, grain=4).spans(length):
        assert where.stop - where.start == min(32, length)
        assert where.start % 4 == 0
        assert weight.min() >= 0
        total[where] += weight
        first, last = halo if where.start else 0, len(weight) - (halo if where.stop < length else 0)
        assert not weight[:first].any() and not weight[last:].any()  # context is thrown away
    assert torch.allclose(total, torch.ones(length))


def test_with_a_halo_of_its_reach_a_denoiser_does_not_notice():
    for halo, close in ((3, True), (2, False)):
        height, width = (20 + n * (20 - 2 * halo) for n in (1, 3))  # tiles overlap by no more than they must
        x, given = torch.randn(2, 2, 1, height, width, generator=torch.Generator().manual_seed(0))
        tiles = Tiled(blur, 20, halo)(x, LEVELS[500], given=given).x0
        assert torch.allclose(tiles, blur(x, LEVELS[500], given).x0, atol=1e-6) == close


def upsampler(local: bool) -> Upsampler:
    torch.manual_seed(0)
    net = Upsampler(UpsamplerConfig(16, 64, True, UNetConfig(6, 3, (8,), 1, (), patch=2, local=local)))
    for p in net.requires_grad_(False).eval().parameters():
        p += 0.05 * torch.randn(p.shape)
    return net


def enlarged(net: Upsampler, side: int | None) -> torch.Tensor:
    """Four steps from noise, on a picture wider than high."""
    given = net.condition(torch.rand(1, 3, 24, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    x = Draw([3], "x").like(given)
    path = LEVELS.spaced(spread(1000, 4)).down()
    for x, _ in walk(Clip(net.denoiser(side)), x, path, ddim(), given=given):
        pass
    return x


def test_a_local_upsampler_draws_the_same_in_tiles():
    net = upsampler(local=True)
    assert net.config.unet.reach < 40
    assert (enlarged(net, 84) - enlarged(net, None)).abs().max() < 1e-4  # a fortieth of 1/255


def test_tiles_of_a_network_with_group_norm_differ_but_show_no_seam():
    """Across the line where tiles meet the picture changes no more than it does elsewhere in the whole picture."""
    net = upsampler(local=False)
    whole, tiled = enlarged(net, None), enlarged(net, 64)
    assert not torch.allclose(whole, tiled, atol=1e-3)
    edges = {where.start for where, _ in net.denoiser(64).spans(224)} - {0}
    assert edges
    steps = (tiled - whole).diff(dim=3).abs().mean((0, 1, 2))
    assert max(steps[edge - 1] for edge in edges) < 3 * steps.mean()


def test_a_tile_must_hold_more_than_its_context():
    net = upsampler(local=True)
    least = -(-2 * net.config.unet.reach // 2) * 2 + 2
    for side in (least - 2, least + 1, 0, -4):
        with pytest.raises(UnclipError, match=f"tile is {side}; .* a multiple of 2, {least} or more"):
            net.denoiser(side)
    assert net.denoiser(least)
