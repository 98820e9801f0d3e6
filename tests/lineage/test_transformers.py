"""DALL·E 1 and Image-GPT: causality by gradient, cached sampling, closed forms, eight pictures by heart."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Laplace

from unclip.diffusion.draw import Draw
from unclip.lineage.dalle1 import DALLE, DVAE, DALLEConfig, DVAEConfig, logit_laplace, pattern
from unclip.lineage.image_gpt import ImageGPTSystem, PixelGPT, PixelGPTConfig
from unclip.lineage.palette import shrink
from unclip.lineage.pyramid import PyramidConfig
from unclip.lineage.system import choose
from unclip.nn.transformer import TransformerConfig

SIDE = PyramidConfig((16, 32), 1, 4)  # 2 × 2 codes of a picture of 16 px
TINY = DALLEConfig(50, 4, 12, 3, 3, TransformerConfig(16, 4, 2))
IDS = torch.tensor([[1, 7, 2, 0], [1, 9, 8, 2]])


def test_a_code_knows_the_caption_and_the_codes_before_it():
    """Through four blocks of sparse attention every code before reaches the one told, and none after it."""
    torch.manual_seed(0)
    net = DALLE(TINY)
    seen = {}

    def watch(name):
        real = getattr(net, name)

        def see(ids):
            seen[name] = real(ids).detach().requires_grad_()
            return seen[name]

        setattr(net, name, see)

    watch("read"), watch("see")
    _, logits = net(IDS[:1], torch.randint(12, (1, 9)))
    for i in range(9):
        text, codes = torch.autograd.grad(logits[0, i].sum(), list(seen.values()), retain_graph=True)
        assert (text.abs().sum(2) > 0).all()
        moved = codes.abs().sum(2)[0] > 0  # the last code is told by none
        assert moved[:i].all() and not moved[i:].any()


def test_probabilities_of_all_codes_sum_to_one():
    """DALL·E's of a caption, and Image-GPT's: were a code told of itself or of what follows, they would not."""
    every = torch.tensor(list(product(range(3), repeat=4)))
    torch.manual_seed(0)
    dalle = DALLE(DALLEConfig(50, 4, 3, 2, 3, TransformerConfig(16, 4, 2)))
    pixels = PixelGPT(PixelGPTConfig(2, 3, TransformerConfig(16, 2, 2)))
    for code in (dalle.codes, pixels.net.tokens):
        torch.nn.init.normal_(code.weight)  # so that what leaks would be heard
    with torch.no_grad():
        logits = dalle(IDS[:1].expand(81, -1), every)[1]
        told = -F.cross_entropy(logits.mT, every, reduction="none")
        for log_p in (told, -pixels.nll(every)):
            assert log_p.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_text_is_blind_to_the_picture_and_to_its_own_future():
    net = DALLE(TINY)
    a, _ = net(IDS, torch.zeros(2, 9, dtype=torch.long))
    b, _ = net(IDS, torch.ones(2, 9, dtype=torch.long))
    assert torch.equal(a, b)
    other = IDS.clone()
    other[:, 2] = 30
    c, _ = net(other, torch.zeros(2, 9, dtype=torch.long))
    assert torch.equal(a[:, :2], c[:, :2]) and not torch.equal(a[:, 2], c[:, 2])


def test_the_patterns_are_those_of_the_paper():
    """By hand on a 3×3 grid: what the code in the middle (number 4) may look at."""
    for kind, codes in [("row", {1, 2, 3, 4}), ("column", {1, 4}), ("convolution", {0, 1, 2, 3, 4})]:
        mask = pattern(kind, 2, 3, 3)
        assert set(mask[2 + 4].nonzero()[:, 0].tolist()) == {0, 1} | {2 + c for c in codes}, kind


@pytest.mark.parametrize("start", [0, 6])
def test_cached_sampling_is_the_same_as_asking_anew(start):
    """Image-GPT, code by code with nothing kept, from the same noise."""
    torch.manual_seed(0)
    net = PixelGPT(PixelGPTConfig(4, 7, TransformerConfig(16, 2, 2))).eval()
    known = torch.randint(7, (2, start))
    codes, draw = known, Draw([3, 4], "x")
    with torch.no_grad():
        for _ in range(16 - start):
            codes = torch.cat([codes, choose(net.net(codes)[:, -1], draw)[:, None]], dim=1)
    assert torch.equal(net.sample(Draw([3, 4], "x"), known), codes)


def test_cached_sampling_of_dalle():
    torch.manual_seed(0)
    net, draw = DALLE(TINY).eval(), Draw([3, 4], "x")
    codes = torch.zeros(2, 9, dtype=torch.long)
    with torch.no_grad():
        for i in range(9):
            codes[:, i] = choose(net(IDS, codes)[1][:, i], draw, 0.8, 5)
    assert torch.equal(net.sample(IDS, Draw([3, 4], "x"), 0.8, 5).flatten(1), codes)


def test_a_pixel_knows_exactly_those_before_it():
    torch.manual_seed(0)
    net = PixelGPT(PixelGPTConfig(4, 7, TransformerConfig(16, 2, 2)))
    x = torch.randn(1, 16, 16, requires_grad=True)  # the start, then the fifteen that something stands after
    net.net.tokens.forward = lambda codes: x
    logits = net.net(torch.zeros(1, 15, dtype=torch.long))
    for i in (0, 5, 15):
        (d,) = torch.autograd.grad(logits[0, i].sum(), x, retain_graph=True)
        moved = d.abs().sum(2)[0] > 0
        assert moved[: i + 1].all() and not moved[i + 1 :].any()


def test_bits_of_an_untrained_guess():
    net = PixelGPT(PixelGPTConfig(4, 16, TransformerConfig(16, 1, 2)))
    torch.nn.init.zeros_(net.net.out.weight)
    net.palette.colours.copy_(torch.rand(16, 3))
    bits = ImageGPTSystem(image_gpt=net).bits(torch.rand(2, 3, 4, 4))
    torch.testing.assert_close(bits, torch.full((2,), math.log2(16) / 3))


def test_logit_laplace_is_the_change_of_variables():
    y, mean, log_b = torch.rand(50) * 0.8 + 0.1, torch.randn(50), torch.randn(50)
    true = -Laplace(mean, log_b.exp()).log_prob(y.logit()) + (y * (1 - y)).log()
    torch.testing.assert_close(logit_laplace(y, mean, log_b), true)


def test_kl_of_the_discrete_code():
    """Nothing known costs nothing; a sure choice of one in K costs ln K at each place."""
    net = DVAE(DVAEConfig(16, 16, 8, pyramid=SIDE))
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    last = net.down.conv_out
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    g = torch.Generator().manual_seed(0)
    torch.testing.assert_close(net.terms(x, g)[1], torch.zeros(2), atol=1e-5, rtol=0)
    last.bias.data[3] = 100
    torch.testing.assert_close(net.terms(x, g)[1], torch.full((2,), 4 * math.log(16)))


def test_the_temperature_falls():
    net = DVAE(DVAEConfig(16, 16, 8, anneal=10, pyramid=SIDE))
    assert net.temperature().item() == 1
    net.steps += 5
    assert net.temperature().item() == pytest.approx(1 / 4)
    net.steps += 50
    assert net.temperature().item() == pytest.approx(1 / 16)


@pytest.mark.slow
def test_the_dvae_by_heart(eight, memorise, nearest):
    """Hard codes tell every shape and half of the colours: an absolute error is content with the others' median.

    (The choice is noisy: four draws of each picture.)
    """
    torch.manual_seed(0)
    net = DVAE(DVAEConfig(16, 32, 16, anneal=400, pyramid=SIDE))
    memorise(net, lambda g: net.loss(eight.repeat(4, 1, 1, 1), g), 600, 1e-2)
    with torch.no_grad():
        error, which = nearest(net.decode(net.encode(eight)), eight)
    own = torch.arange(8)
    assert torch.equal(which // 4, own // 4) and (which == own).sum() >= 4, f"{which}"
    assert error.max() < 0.02, f"{error}"


@pytest.mark.slow
def test_dalle_by_heart(memorise):
    """Eight captions, each with codes of its own: from a caption its very codes are drawn again."""
    torch.manual_seed(0)
    net = DALLE(DALLEConfig(50, 4, 32, 3, 3, TransformerConfig(32, 3, 2)))
    ids = torch.stack([torch.tensor([1, 10 + i, 2, 0]) for i in range(8)])
    codes = torch.randint(32, (8, 3, 3))
    memorise(net, lambda g: net.loss(ids, codes.flatten(1)), 200)
    assert (net.sample(ids, Draw(range(8), "x"), 0.5) == codes).flatten(1).all(1).sum() >= 7


@pytest.mark.slow
def test_image_gpt_by_heart(eight, memorise, nearest):
    torch.manual_seed(0)
    small = shrink(eight, 8)
    net = PixelGPT(PixelGPTConfig(8, 32, TransformerConfig(48, 2, 4)))
    net.palette.fit(small, torch.Generator().manual_seed(0))
    bits = memorise(net, lambda g: net.loss(small, g), 300) / math.log(2)
    system = ImageGPTSystem(image_gpt=net)
    error, which = nearest(system.sample([""] * 16, range(16)), small)
    assert bits < 0.15 and error.median() < 0.02 and len(set(which.tolist())) >= 4
    again = system.complete(small, range(8))
    assert torch.equal(again[:, :, :4], net.palette.quantised(small)[:, :, :4])
    assert nearest(again, small)[0].median() < 0.02
