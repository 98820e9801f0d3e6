"""DDPM, iDDPM, ADM, GLIDE: importance sampling is unbiased, guidance works, eight pictures by heart."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Guide, classified
from unclip.diffusion.process import Process
from unclip.lineage.adm import ADMSystem, Classifier, ClassifierConfig, NoisedConfig
from unclip.lineage.ddpm import DDPMSystem, Diffusion, DiffusionConfig, ImprovedSystem
from unclip.lineage.glide import GLIDE, PROCESS, GLIDEConfig, GLIDESystem, NoisedCLIP, NoisedCLIPConfig, holes
from unclip.lineage.palette import shrink
from unclip.lineage.pyramid import PyramidConfig
from unclip.lineage.reader import reader
from unclip.models.decoder import DecoderConfig
from unclip.models.noised_clip import NoisedImageConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig

NET = UNetConfig(3, 3, (24, 32), 1, (1,), 16, patch=2, scale_shift=False)
IMPROVED = DiffusionConfig(16, True, replace(NET, out_channels=6), Process("cosine", 50, "x0", "learned", cap=20.0))


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_levels_are_drawn_by_their_losses_and_weighed_back():
    net = Diffusion(replace(IMPROVED, diffusion=Process("cosine", 4)))
    i, weight = net.levels_for(1000, g())
    assert set(i.tolist()) == {1, 2, 3, 4} and (weight == 1).all()
    loss = torch.tensor([1.0, 2.0, 3.0, 10.0])
    for _ in range(10):
        net.remember(torch.arange(4), loss)
    i, weight = net.levels_for(40_000, g())
    share = torch.bincount(i - 1, minlength=4) / 40_000
    torch.testing.assert_close(share, loss / loss.sum(), atol=0.01, rtol=0)  # √E[L²] of a constant is itself
    assert (weight * loss[i - 1]).mean().item() == pytest.approx(loss.mean().item(), rel=1e-3)
    assert (weight * loss[i - 1]).std() < 0.02 * loss.std()  # which is what it is for


def test_the_mean_of_uneven_draws_is_that_of_even_ones():
    net = Diffusion(replace(IMPROVED, diffusion=Process("cosine", 4)))
    for _ in range(10):
        net.remember(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 10.0]))
    other = torch.tensor([5.0, 1.0, 0.5, 2.0])
    i, weight = net.levels_for(200_000, g())
    assert (weight * other[i - 1]).mean().item() == pytest.approx(other.mean().item(), rel=0.02)


def test_a_classifier_learns_nothing_from_what_has_no_name():
    net = Classifier(ClassifierConfig(("red", "blue"), NoisedConfig(16, 2, 16, PyramidConfig((8, 8), 1, 2))))
    y = net.labels(["a blue bar", "a green one", "red"])
    assert y.tolist() == [1, -100, 0]
    x = torch.randn(3, 3, 16, 16)
    assert net.loss(x, torch.full((3,), -100), g()).item() == 0


def test_holes_are_boxes_of_many_sizes():
    where = holes(400, 16, g())
    assert set(where.unique().tolist()) == {0.0, 1.0}
    inside = 1 - where[:, 0]
    assert torch.equal(inside, inside.amax(2, keepdim=True) * inside.amax(1, keepdim=True))
    assert inside.mean((1, 2)).min() < 0.02 and inside.mean((1, 2)).max() > 0.5


def test_glides_variance_stays_within_its_range():
    """A young network of x0 learns one far beyond beta, to cover its own error; a walk with that ends in blots."""

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), torch.full_like(x, 25.0)], dim=1)

    frac = PROCESS.denoiser(net)(torch.randn(2, 3, 4, 4), PROCESS.levels()[500]).frac
    assert torch.equal(frac, torch.ones(2, 3, 4, 4))


@pytest.mark.slow
def test_ddpm_by_heart(eight, memorise, nearest):
    """Eps is predicted of single pixels: of patches of four a network this narrow carries too little noise through."""
    torch.manual_seed(0)
    small = shrink(eight, 8)
    unet = UNetConfig(3, 3, (32, 48), 1, (1,), 16, patch=1, scale_shift=False)
    net = Diffusion(DiffusionConfig(8, False, unet, Process("linear", 50, "eps")))
    with torch.no_grad():
        before = net.bits(small, 50).mean().item()
    memorise(net, lambda g: net.loss(small.repeat(4, 1, 1, 1), g), 500)
    system = DDPMSystem(ddpm=net)
    error, which = nearest(system.sample([""] * 16, range(16)), small)
    spread = F.mse_loss(small.mean(0).expand_as(small), small)  # the error of the mean of the eight
    assert error.median() < spread / 3 and len(set(which.tolist())) >= 4, f"{error}"
    assert system.bits(small).mean() < before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["iddpm", "adm"])
def test_by_heart(kind, eight, memorise, nearest):
    torch.manual_seed(0)
    if kind == "iddpm":
        net, system = Diffusion(IMPROVED), ImprovedSystem
    else:
        unet = replace(IMPROVED.unet, attention=(0, 1), scale_shift=True)
        net, system = Diffusion(replace(IMPROVED, importance=False, unet=unet)), ADMSystem
    batch = eight.repeat(4, 1, 1, 1)
    with torch.no_grad():
        before = net.bits(eight, 20).mean().item()
    memorise(net, lambda g: net.loss(batch, g), 900)
    ready = system(**{kind: net})
    drawn = net.sample(Draw(range(16), "x"), 50)
    error, which = nearest(drawn, eight)
    assert error.median() < 0.06 and len(set(which.tolist())) >= 4, f"{error}"
    assert ready.bits(eight).mean() < before


@pytest.mark.slow
def test_a_classifier_guides(eight, memorise):
    """Upright bars against level ones: a strong classifier makes an untrained walk end where it says."""
    torch.manual_seed(0)
    process = Process("cosine", 50, "x0")
    look = NoisedConfig(16, 2, 16, PyramidConfig((16, 24), 1, 2), process)
    net = Classifier(ClassifierConfig(("upright", "level"), look))
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    memorise(net, lambda g: net.loss(eight.repeat(4, 1, 1, 1), y.repeat(4), g), 150)
    model = Diffusion(DiffusionConfig(16, False, NET, process))
    memorise(model, lambda g: model.loss(eight.repeat(4, 1, 1, 1), g), 500)
    for want in (0, 1):
        guide = partial(Guide, log_prob=classified(net.net, torch.full((16,), want)), scale=4.0)
        drawn = model.sample(Draw(range(16), "x"), 25, guide=guide)
        upright = (drawn[:, :, 3, 5:11].mean((1, 2)) < drawn[:, :, 7, 1:4].mean((1, 2))).float().mean()
        assert (upright > 0.8) if want == 0 else (upright < 0.2), f"{want}: {upright}"


@pytest.mark.slow
def test_glide_by_heart(eight, memorise, nearest):
    """Each caption draws its picture; a hole is filled and the rest kept; the noised CLIP finds its captions."""
    torch.manual_seed(0)
    lines = [f"{colour} {shape}" for shape in ("tower", "bridge") for colour in ("red", "green", "blue", "black")]
    process = Process("cosine", 50, "x0", "learned", cap=4.0)
    unet = UNetConfig(7, 6, (24, 32), 1, (1,), 16, context=32, patch=2)
    net = GLIDE(GLIDEConfig(decoder=DecoderConfig(16, 16, 8192, 8, 1, TransformerConfig(32, 1, 2), unet, process)))
    ids = reader().ids(lines, 8)
    memorise(net, lambda g: net.loss(eight.repeat(4, 1, 1, 1), ids.repeat(4, 1), g), 700)
    look = NoisedCLIP(NoisedCLIPConfig(process, NoisedImageConfig(256, 16, 4, 50, TransformerConfig(32, 2, 2))))
    z_t = reader().z_t(lines)
    assert memorise(look, lambda g: look.loss(eight, z_t, g), 200) < 1.2  # ln 8 = 2.08 is chance
    system = GLIDESystem(glide=net, glide_clip=look)
    error, which = nearest(system.sample(lines, range(8)), eight)
    assert (which == torch.arange(8)).sum() >= 6 and error.median() < 0.08, f"{error} {which}"
    where = torch.ones(8, 1, 16, 16)
    where[:, :, 4:12, 4:12] = 0
    filled = system.inpaint(eight, where, lines, range(8))
    torch.testing.assert_close(filled * where, eight * where)
    assert nearest(filled, eight)[0].median() < 0.08
    system.clip_guidance = 20.0
    assert system.sample(lines[:2], [0, 1]).isfinite().all()
