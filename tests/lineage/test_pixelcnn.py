"""PixelCNN: nothing sees what comes after it; the sum over all pictures is one; eight pictures by heart."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from unclip.diffusion.draw import Draw
from unclip.lineage.palette import Palette, shrink
from unclip.lineage.pixelcnn import PixelCNN, PixelCNNConfig, Pixels, PixelsConfig, PixelsSystem
from unclip.lineage.pyramid import PyramidConfig
from unclip.lineage.system import choose
from unclip.lineage.vqvae import VQVAE, VQVAE2, CodebookConfig, VQVAE2Config, VQVAE2System, VQVAEConfig, VQVAESystem

TINY = PixelCNNConfig(grid=6, codes=5, width=8, depth=3, kernel=3)


def test_a_place_knows_exactly_what_is_before_it():
    """By gradient: the logits at (3, 2) move with every place before it in raster order within reach, and no other."""
    torch.manual_seed(0)
    net = PixelCNN(TINY)
    x = torch.randn(1, 6, 6, 8, requires_grad=True)
    net.embed.forward = lambda codes: x  # type: ignore[method-assign]
    logits = net(torch.zeros(1, 6, 6, dtype=torch.long))
    for y, column in [(3, 2), (0, 0), (5, 5), (2, 0)]:
        (d,) = torch.autograd.grad(logits[0, :, y, column].sum(), x, retain_graph=True)
        moved = d.abs().sum(3)[0] > 0
        before = torch.arange(36).view(6, 6) < 6 * y + column
        assert not (moved & ~before).any()
        near = before & ((torch.arange(6)[:, None] >= y - 2) & ((torch.arange(6)[None] - column).abs() <= 1))
        assert (moved | ~near).all(), f"({y}, {column}) is blind to some of its past"


def test_probabilities_of_all_grids_sum_to_one():
    net = PixelCNN(PixelCNNConfig(grid=2, codes=3, width=8, depth=2, kernel=3))
    every = torch.tensor(list(product(range(3), repeat=4))).view(-1, 2, 2)
    with torch.no_grad():
        assert (-net.nll(every).flatten(1).sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_bits_of_an_untrained_guess():
    """Uniform logits cost log2 K a pixel, a third of that a value."""
    net = Pixels(PixelsConfig(16, PixelCNNConfig(8, 16, 8, 2, 3)))
    torch.nn.init.zeros_(net.net.out[1].weight)
    torch.nn.init.zeros_(net.net.out[1].bias)
    net.palette.colours.copy_(torch.rand(16, 3))
    bits = PixelsSystem(pixelcnn=net).bits(torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(bits, torch.full((2,), math.log2(16) / 3))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("told", [False, True])
def test_each_place_alone_is_enough(kernel, told):
    """Sampling asks the layers for one place at a time: it draws what asking anew for the whole grid would draw."""
    torch.manual_seed(0)
    net = PixelCNN(PixelCNNConfig(grid=8, codes=5, width=8, depth=3, kernel=kernel, given=7 if told else 0))
    torch.nn.init.normal_(net.out[1].weight, std=3)  # choices that hang on what is seen
    torch.nn.init.normal_(net.place)
    given = torch.randint(7, (2, 4, 4)) if told else None
    for known in (0, 3):
        codes, draw = torch.randint(5, (2, 8, 8)), Draw([3, 4], "x")
        start = codes.clone()
        with torch.no_grad():
            for i in range(8 * known, 64):
                codes[:, i // 8, i % 8] = choose(net(codes, given)[:, :, i // 8, i % 8], draw)
        assert torch.equal(net.sample(Draw([3, 4], "x"), given=given, start=start, known=known), codes)


def test_what_is_given_reaches_every_place():
    net = PixelCNN(PixelCNNConfig(grid=4, codes=5, width=8, depth=2, kernel=3, given=7))
    codes = torch.randint(5, (1, 4, 4))
    a, b = (net(codes, torch.full((1, 2, 2), k)) for k in (1, 2))
    assert ((a - b).abs().sum(1) > 0).all()


def test_choose_follows_the_logits_and_the_seed_alone():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).log_softmax(1)
    draws = choose(logits.expand(4000, -1), Draw(range(4000), "test"))
    found = torch.bincount(draws, minlength=4) / 4000
    torch.testing.assert_close(found, logits.exp()[0], atol=0.03, rtol=0)
    assert torch.equal(choose(logits.expand(2, -1), Draw([7, 8], "a")), torch.cat([
        choose(logits, Draw([7], "a")), choose(logits, Draw([8], "a"))]))  # fmt: skip
    assert set(choose(logits.expand(500, -1), Draw(range(500), "t"), top_k=2).tolist()) == {1, 2}
    assert set(choose(logits.expand(50, -1), Draw(range(50), "t"), temperature=0).tolist()) == {2}


def test_a_palette_finds_the_colours_there_are():
    colours = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0.8, -0.6, 0.2], [-0.2, 0.4, 0.6]])
    index = torch.randint(4, (2, 8, 8))
    palette = Palette(4)
    picture = torch.nn.functional.embedding(index, colours).permute(0, 3, 1, 2)
    palette.fit(picture, torch.Generator().manual_seed(0))
    torch.testing.assert_close(palette.quantised(picture), picture, atol=0.01, rtol=0)
    assert shrink(picture, 4).shape == (2, 3, 4, 4)


@pytest.mark.slow
def test_pixels_by_heart(eight, memorise, nearest):
    torch.manual_seed(0)
    small = shrink(eight, 8)
    net = Pixels(PixelsConfig(32, PixelCNNConfig(8, 32, 32, 5, 5)))
    net.palette.fit(small, torch.Generator().manual_seed(0))
    bits = memorise(net, lambda g: net.loss(small, g), 300) / math.log(2)
    system = PixelsSystem(pixelcnn=net)
    error, which = nearest(system.sample([""] * 16, range(16)), small)
    assert bits < 0.15 and error.median() < 0.02 and len(set(which.tolist())) >= 4
    again = system.complete(small, range(8))
    assert torch.equal(again[:, :, :4], net.palette.quantised(small)[:, :, :4])
    assert nearest(again, small)[0].median() < 0.02


@pytest.mark.slow
def test_codes_by_heart(eight, memorise, nearest):
    torch.manual_seed(0)
    first = VQVAE(VQVAEConfig(16, PyramidConfig((16, 32), 1, 2), CodebookConfig(32, 8)))
    memorise(first, lambda g: first.loss(eight, g), 400)
    prior = PixelCNN(PixelCNNConfig(4, 32, 32, 4, 3))
    with torch.no_grad():
        codes = first.encode(eight)
    memorise(prior, lambda g: prior.loss(codes), 300)
    system = VQVAESystem(vqvae=first, vqvae_prior=prior)
    with torch.no_grad():
        error, which = nearest(system.sample([""] * 16, range(16)), eight)
        price = system.bits(eight) - first.bits(eight)
    assert error.median() < 0.03 and len(set(which.tolist())) >= 4
    assert (price * 768).mean() == pytest.approx(3, abs=1.5)  # eight pictures alike: three bits each, and no fewer


@pytest.mark.slow
def test_two_levels_of_codes_by_heart(eight, memorise, nearest):
    """VQ-VAE-2: the top is drawn, then the bottom that goes with it."""
    torch.manual_seed(0)
    book, level = CodebookConfig(32, 8), PixelCNNConfig(4, 32, 32, 4, 3)
    first = VQVAE2(VQVAE2Config(16, PyramidConfig((16, 32), 1, 2), PyramidConfig((32, 32), 1, 1), book))
    memorise(first, lambda g: first.loss(eight, g), 400)
    with torch.no_grad():
        top, bottom = first.encode(eight)
    priors = PixelCNN(replace(level, grid=2)), PixelCNN(replace(level, given=32))
    memorise(priors[0], lambda g: priors[0].loss(top), 300)
    memorise(priors[1], lambda g: priors[1].loss(bottom, top), 300)
    system = VQVAE2System(vqvae2=first, vqvae2_top=priors[0], vqvae2_bottom=priors[1])
    with torch.no_grad():
        error, which = nearest(system.sample([""] * 16, range(16)), eight)
        price = system.bits(eight) - first.bits(eight)
    assert error.median() < 0.03 and len(set(which.tolist())) >= 4, f"{error}"
    assert (price * 768).mean() == pytest.approx(3, abs=1.5)  # eight pictures alike, whichever level tells them apart
