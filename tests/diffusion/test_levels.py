import math

import pytest
import torch

from unclip.diffusion import Levels, cosine, linear, mix, posterior_mean, posterior_variance, spread
from unclip.diffusion.process import Process
from unclip.errors import UnclipError

COSINE = Levels.from_betas(cosine(1000))
FLOW = Levels(*(torch.linspace(a, b, 101, dtype=torch.float64) for a, b in ((1, 0.01), (0, 0.99))), torch.arange(101))


def betas(levels):
    return posterior_variance(levels[1:], levels[:-1])[1]


@pytest.mark.parametrize("name", ["karlo_schedule_prior", "karlo_schedule_decoder", "karlo_schedule_sr"])
def test_respacing_is_indexing(golden, name):
    want = golden(name)
    levels = COSINE.spaced(spread(1000, len(want["betas"])))
    at, to = levels[1:], levels[:-1]
    small, large = posterior_variance(at, to)
    exact = {"rtol": 1e-8, "atol": 1e-13}  # the golden abar went through 1 - beta again, and lost digits at 1e-9
    assert at.t.tolist() == want["timestep_map"].tolist()
    torch.testing.assert_close(at.alpha**2, want["alphas_cumprod"], **exact)
    torch.testing.assert_close(large, want["betas"], **exact)
    torch.testing.assert_close(small.log(), want["posterior_log_variance_clipped"], **exact)  # the floor is its own
    torch.testing.assert_close(to.alpha * large / at.sigma**2, want["coef1"], **exact)
    torch.testing.assert_close(at.alpha / to.alpha * to.sigma**2 / at.sigma**2, want["coef2"], **exact)


def test_spread_as_published(golden):
    want = golden("glide_fast27")
    fast27 = set(spread(1000, 10, 10, 3, 2, 2)) - {1000} | {998}
    assert COSINE.spaced(fast27).t[1:].tolist() == want["ts"].tolist()
    assert COSINE.spaced(spread(1000, 100)).t[1:].tolist() == want["ts100"].tolist()
    assert COSINE.spaced(spread(1000, 250)).t[1:].tolist() == want["ts250"].tolist()
    assert COSINE.spaced(range(1, 1001, 40)).t[1:].tolist() == want["ddim25"].tolist()


@pytest.mark.parametrize("n", [21, 23, 250, 999])
def test_spread_rounds_as_published(n):
    """iDDPM's code adds the stride up, and what rounding is left decides a tie: 21 steps are not the products'."""
    steps, at = [], 0.0
    for _ in range(n):
        steps.append(1 + round(at))
        at += 999 / (n - 1)
    assert spread(1000, n) == steps


@pytest.mark.parametrize("counts", [(1,), (7,), (1000,), (10, 15, 20), (1, 1, 333)])
def test_spread_fills_sections(counts):
    steps = spread(1000, *counts)
    assert len(set(steps)) == sum(counts)
    assert steps == sorted(steps)
    assert steps[0] == 1
    assert steps[-1] <= 1000
    assert counts == (1,) or steps[-1] == 1000


@pytest.mark.parametrize("spacing", ["even", "karras", "strides"])
def test_a_process_may_go_part_of_the_way_and_in_one_step(spacing):
    """One step must begin at noise, or it would draw nothing but noise."""
    process = Process()
    one, nine = (process.spaced(steps, spacing) for steps in (1, 9))
    assert len(one) == 2 and torch.equal(one.alpha[-1], nine.alpha[-1])
    part = process.spaced(7, spacing, top=300)
    assert len(part) == 8 and torch.equal(part.alpha[-1], process.levels().alpha[300])


def test_spread_and_spaced_refuse():
    with pytest.raises(UnclipError, match="cannot spread 501 steps over a section of 500"):
        spread(1000, 10, 501)
    for steps in ([], [0, 5], [1001]):
        with pytest.raises(UnclipError, match=r"from 1\.\.1000"):
            COSINE.spaced(steps)


def test_spaced_of_all_is_itself():
    again = COSINE.spaced(range(1, 1001))
    assert torch.equal(again.alpha, COSINE.alpha)
    assert torch.equal(again.t, COSINE.t)
    assert again.floor == COSINE.floor
    assert COSINE.spaced(range(10, 1001, 10)).spaced([1, 50]).t.tolist() == [-1, 9, 499]


@pytest.mark.parametrize("schedule", [linear(1000), linear(4000), cosine(1000), linear(1000, 0.00085, 0.012)])
def test_betas_survive_the_table(schedule):
    """Trap: 1 - r^2 must be taken in float64; a float32 table spoils the betas."""
    levels = Levels.from_betas(schedule)
    torch.testing.assert_close(betas(levels), schedule, rtol=1e-8, atol=0)
    torch.testing.assert_close(betas(Levels.from_betas(schedule.float())), schedule, rtol=1e-6, atol=0)
    single = 1 - (levels.alpha.float()[1:] / levels.alpha.float()[:-1]) ** 2
    assert (single / schedule - 1).abs().max() > 5e-5


def test_schedules_as_published():
    assert linear(1000)[[0, -1]].tolist() == [1e-4, 0.02]
    assert linear(4000)[[0, -1]].tolist() == pytest.approx([2.5e-5, 0.005])
    abar, t = COSINE.alpha[1:1000] ** 2, torch.arange(1, 1000) / 1000
    f = torch.cos((t.double() + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(abar, f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2)
    assert cosine(1000)[-1] == 0.999


def test_floor_is_the_second_steps_variance_and_the_last_steps_only():
    levels = COSINE.spaced([500, 800, 801])  # uneven: step two has a far larger variance than step three
    assert levels.floor == posterior_variance(levels[2], levels[1])[0].item()
    assert posterior_variance(levels[1], levels[0])[0].item() == levels.floor
    small, large = posterior_variance(levels[3], levels[2])
    assert small < large < levels.floor
    lone = COSINE.spaced([1000])
    assert posterior_variance(lone[1], lone[0])[0] == posterior_variance(lone[1], lone[0])[1]


@pytest.mark.parametrize("levels", [COSINE, FLOW], ids=["cosine", "flow"])
@pytest.mark.parametrize(("i", "j"), [(90, 89), (60, 20), (2, 1)])
def test_posterior_is_gaussian_conditioning(levels, i, j):
    """q(x_to | x_at, x0), by conditioning the joint Gaussian of (x_to, x_at) given x0 on its second half."""
    at, to, x0, x = levels[i], levels[j], torch.tensor([0.7]).double(), torch.tensor([-0.4]).double()
    r = at.alpha / to.alpha
    gain = r * to.sigma**2 / at.sigma**2  # Cov(x_to, x_at) / Var(x_at)
    torch.testing.assert_close(posterior_mean(x, x0, at, to), to.alpha * x0 + gain * (x - at.alpha * x0))
    torch.testing.assert_close(posterior_variance(at, to)[0], to.sigma**2 - gain * r * to.sigma**2)


def test_posterior_golden(golden):
    want = golden("karlo_pmv_prior")
    levels = COSINE.spaced(spread(1000, 25))
    x, i = want["x"], want["t"] + 1
    at, to = levels[i].like(x), levels[i - 1].like(x)
    mean = posterior_mean(x, want["model_out"].clamp(-1, 1), at, to)
    torch.testing.assert_close(mean, want["mean"].float(), rtol=1e-6, atol=1e-6)
    log_var = posterior_variance(at, to)[0].log().float().expand_as(x)
    torch.testing.assert_close(log_var, want["log_variance"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 8, 8)])
def test_like(shape):
    x, i = torch.randn(shape), torch.tensor([1, 500, 2, 1000])
    batch = COSINE[i].like(x)
    assert batch.alpha.shape == (4, *[1] * (len(shape) - 1))
    assert batch.t.tolist() == [0, 499, 1, 999]
    assert batch.like(x).alpha.shape == batch.alpha.shape
    for n, row in enumerate(i):
        one = COSINE[row].like(x)
        assert one.alpha.ndim == 0
        assert one.t.tolist() == [row - 1] * 4
        torch.testing.assert_close(mix((batch.alpha, x))[n], mix((one.alpha, x))[n])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mix_keeps_dtype_and_layout(dtype):
    x = torch.randn(2, 3, 4, 4, dtype=dtype).to(memory_format=torch.channels_last)
    for at in (COSINE[500].like(x), COSINE[torch.tensor([3, 500])].like(x)):
        y = mix((at.alpha, x), (at.sigma, x))
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_ways():
    levels = COSINE.spaced([10, 20, 30])
    assert [(at.t.item(), to.t.item()) for at, to in levels.down()] == [(29, 19), (19, 9), (9, -1)]
    assert [(at.t.item(), to.t.item()) for at, to in levels.up()] == [(9, 19), (19, 29)]
