"""BSR degradation: what each step does to pictures whose answer is known, and what its randomness is a function of."""

import math

import pytest
import torch

from unclip.data import degrade
from unclip.data.degrade import bsr, gaussian_blur


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(size: int = 64, batch: int = 4) -> torch.Tensor:
    """Smooth colours under a hard edge."""
    ramp = torch.linspace(-0.8, 0.8, size)
    x = torch.stack([ramp.expand(size, size), ramp.expand(size, size).T, (ramp[:, None] > ramp).float()])
    return x.expand(batch, 3, size, size).clone()


def test_the_degraded_picture_is_still_the_picture():
    high = scene()
    low = bsr(high, 4, generator())
    assert low.shape == (4, 3, 16, 16)
    assert low.min() >= -1 and low.max() <= 1
    clean = torch.nn.functional.avg_pool2d(high, 4)
    error = (low - clean).square().mean((1, 2, 3)).sqrt()
    assert error.max() < 0.2
    assert error.min() > 0.005


def test_each_picture_is_spoilt_in_its_own_way_by_the_generator_alone():
    low = bsr(scene(), 4, generator(5))
    assert torch.equal(low, bsr(scene(), 4, generator(5)))
    assert not torch.equal(low, bsr(scene(), 4, generator(6)))
    assert len({picture.numpy().tobytes() for picture in low}) == 4


def test_the_order_is_drawn_anew(monkeypatch):
    called = []
    for name in ("blur", "speckle", "jpeg"):
        real = getattr(degrade, name)
        monkeypatch.setattr(degrade, name, lambda x, g, real=real, name=name: called.append(name) or real(x, g))
    orders = set()
    for seed in range(80):
        called.clear()
        bsr(scene(32, 1), 4, generator(seed))
        assert sorted(called) == ["blur", "blur", "jpeg", "jpeg", "speckle"]
        assert called[-1] == "jpeg"
        orders.add(tuple(called[:-1]))
    assert len(orders) == 12


def test_blurs_keep_flat_colours_and_the_mean():
    flat = torch.full((1, 3, 16, 16), 0.3)
    for seed in range(5):
        torch.testing.assert_close(degrade.blur(flat, generator(seed)), flat)
    torch.testing.assert_close(gaussian_blur(flat), flat)
    dot = torch.zeros(1, 3, 17, 17)
    dot[..., 8, 8] = 1
    spread = degrade.blur(dot, generator(1))
    torch.testing.assert_close(spread.sum((2, 3)), torch.ones(1, 3))
    assert spread.max() < 1


def test_the_first_blur_is_the_gaussian_of_its_width():
    """Variance of a blurred dot: that of the discrete Gaussian, along each axis."""
    dot = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    dot[..., 4, 4] = 1
    at = torch.arange(3, dtype=torch.float64) - 1
    tap = torch.exp(-0.5 * (at / 0.6) ** 2)
    tap /= tap.sum()
    torch.testing.assert_close(gaussian_blur(dot)[0, 0, 3:6, 3:6], tap[:, None] * tap)


def test_training_in_bfloat16_does_not_coarsen_pictures():
    """Convolutions are what autocast would do in bfloat16."""
    x = scene(32, 2)
    plain = gaussian_blur(x), bsr(x, 4, generator())
    with torch.autocast("cpu", torch.bfloat16):
        again = gaussian_blur(x), bsr(x, 4, generator())
    for a, b in zip(plain, again, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_jpeg_errs_as_jpeg_does():
    x = scene(32, 1)
    y = degrade.jpeg(x, generator())
    assert 0.002 < (y - x).square().mean().sqrt() < 0.2
    white = torch.ones(1, 3, 16, 16)
    assert (degrade.jpeg(white, generator()) - white).abs().max() < 0.02


def test_speckle_is_as_strong_as_it_says():
    grey = torch.zeros(1, 3, 64, 64)
    strengths = [degrade.speckle(grey, generator(seed)).std().item() * 127.5 for seed in range(40)]
    assert max(strengths) < 8.2
    assert 3 < sum(strengths) / len(strengths) < 5


@pytest.mark.parametrize("seed", range(6))
def test_resizing_keeps_the_mean(seed):
    x = scene(32, 1)
    y = degrade.resize(x, [8, 8], generator(seed))
    assert y.shape == (1, 3, 8, 8)
    assert math.isclose(y.mean().item(), x.mean().item(), abs_tol=0.02)
