import math

import pytest
import torch

from unclip.diffusion import (
    Estimate,
    Levels,
    bits,
    cosine,
    decoder_nll,
    posterior_mean,
    posterior_variance,
    prior_bits,
    vlb,
)
from unclip.diffusion.likelihood import cdf

COSINE = Levels.from_betas(cosine(1000))
BINS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def test_cdf():
    z = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    assert (cdf(z) - torch.special.ndtr(z)).abs().max() < 2e-4
    tanh = 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    torch.testing.assert_close(cdf(z), tanh, rtol=1e-5, atol=1e-15)
    assert (cdf(z.float()[:200]) / cdf(z[:200]) - 1).abs().max() < 1e-4  # the tail keeps digits in float32


@pytest.mark.parametrize("std", [0.002, 0.02, 0.5, 3.0])
@pytest.mark.parametrize("mean", [-1.2, -1.0, 0.0, 0.37, 1.0])
def test_bins_sum_to_one(mean, std):
    p = (-decoder_nll(BINS, torch.tensor(mean).double(), torch.tensor(std).double().log())).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-9)


def test_bins_as_published():
    """DDPM, eq. 13, with the exact distribution function."""
    mean, std = 0.9, 0.1
    edges = torch.cat([BINS[:1] - torch.inf, (BINS[1:] + BINS[:-1]) / 2, BINS[-1:] + torch.inf])
    want = -torch.special.ndtr((edges - mean) / std).diff().log()
    got = decoder_nll(BINS, torch.tensor(mean).double(), torch.tensor(std).double().log())
    near = (BINS - mean).abs() < 3 * std
    torch.testing.assert_close(got[near], want[near], atol=0.05, rtol=0)


def test_decoder_gradcheck():
    x0 = torch.tensor([-1.0, 127 / 127.5 - 1, 1.0]).double()
    mean, log_std = (torch.tensor(v).double().requires_grad_() for v in ([-0.9, 0.1, 0.8], [-2.0, -3.0, -1.0]))
    assert torch.autograd.gradcheck(lambda m, s: decoder_nll(x0, m, s), (mean, log_std))


def test_far_off_is_finite():
    nll = decoder_nll(torch.tensor([0.0, 1.0]), torch.tensor([50.0, -50.0]), torch.tensor(-5.0))
    assert nll.tolist() == pytest.approx([-math.log(1e-12)] * 2)


@pytest.mark.parametrize("i", [2, 300, 1000])
@pytest.mark.parametrize("frac", [0.0, 0.4, 1.0])
def test_bits_are_a_kl(rng, i, frac):
    x0, guess, x = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    at, to = COSINE[i], COSINE[i - 1]
    est = Estimate(guess, frac)
    q = torch.distributions.Normal(posterior_mean(x, x0, at, to), posterior_variance(at, to)[0].sqrt())
    p = torch.distributions.Normal(posterior_mean(x, guess, at, to), (0.5 * est.log_var(at, to)).exp())
    want = torch.distributions.kl_divergence(q, p).mean(1) / math.log(2)
    torch.testing.assert_close(bits(x0, est, at, to), want, rtol=1e-6, atol=1e-12)
    assert bits(x0, Estimate(x0), at, to).tolist() == [0] * 4
    single = bits(x0.float(), est.each(lambda v: v.float()), at, to)
    torch.testing.assert_close(single.double(), want, rtol=1e-5, atol=1e-7)


def test_bits_of_a_batch_are_each_rows(rng):
    x0, guess, frac = torch.rand(3, 4, 2, 3, 3, generator=rng)
    i = torch.tensor([1, 2, 500, 1000])
    got = bits(x0, Estimate(guess, frac), COSINE[i].like(x0), COSINE[i - 1].like(x0))
    for n, row in enumerate(i):
        one = slice(n, n + 1)
        want = bits(x0[one], Estimate(guess[one], frac[one]), COSINE[row], COSINE[row - 1])
        torch.testing.assert_close(got[one], want)


@pytest.mark.parametrize("i", [10, 500, 1000])
def test_prior_bits_are_a_kl(rng, i):
    x0, at = torch.randn(4, 6, generator=rng, dtype=torch.float64), COSINE[i]
    q = torch.distributions.Normal(at.alpha * x0, at.sigma)
    want = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(1) / math.log(2)
    torch.testing.assert_close(prior_bits(x0, at), want, rtol=1e-7, atol=1e-15)


def test_vlb_counts_what_the_last_level_still_knows(rng):
    """A chain cut short at t = 300: its one step, L_0, and an L_T that is far from nothing."""
    levels, x0, est = COSINE.spaced([300]), torch.rand(4, 6, generator=rng), Estimate(torch.rand(4, 6, generator=rng))
    assert (prior_bits(x0, levels[1]) > 0.1).all()
    want = prior_bits(x0, levels[1]) + bits(x0, est, levels[1], levels[0])
    torch.testing.assert_close(vlb(lambda x, at: est, x0, levels), want)


def test_vlb_of_a_gaussian_is_its_likelihood(rng):
    """For x0 ~ N(0, s^2) the reverse steps are Gaussian: with the exact ones the bound is tight, for every x0."""
    s = 0.25
    betas = torch.cat([torch.tensor([0.01]), torch.linspace(0.01, 0.3, 49)]).double()
    levels = Levels.from_betas(betas)  # sigma_1 = 0.1: wide beside a bin, so that bins are points of a density

    def exact(x, at):
        var = 1 / (1 / s**2 + (at.alpha / at.sigma) ** 2)  # of x0 given x_t
        to = levels[int(at.t)]  # the row below: rows count from 1, times from 0
        small, beta = posterior_variance(at, to)
        best = small * (to.sigma > 0) + (to.alpha * beta / at.sigma**2) ** 2 * var
        return Estimate(var * at.alpha / at.sigma**2 * x, ((best / small).log() / (beta / small).log()).item())

    randn = lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)  # noqa: E731
    n = 50_000
    data = torch.stack([*(torch.full((n,), v) for v in (0.0, 0.3, -0.5)), randn(torch.empty(n)) * s]).double()
    for x0 in (((data + 1) * 127.5).round() / 127.5 - 1)[..., None]:
        want = (x0 / s).square().mean() / 2 + math.log(s * math.sqrt(2 * math.pi)) - math.log(2 / 255)
        got = vlb(exact, x0, levels, randn)
        assert got.mean().item() == pytest.approx(want.item() / math.log(2), abs=4 * got.std().item() / n**0.5)
        assert got.std() < 2
    worse = vlb(lambda x, at: exact(0.9 * x, at), x0, levels, randn)
    assert worse.mean() > got.mean() + 0.05  # over data, the last x0 here, any other model is a worse one
