import pytest
import torch

from unclip.diffusion import CFG, Clip, Denoiser, Estimate, Guide, Levels, Threshold, cosine

COSINE = Levels.from_betas(cosine(1000))
AT = COSINE[400]


def net(x, t, c):
    """Mixes nothing across the batch; its second half of channels is the variance."""
    return torch.cat([torch.tanh(x + c), c * torch.ones_like(x)], 1)


@pytest.fixture
def denoise():
    return Denoiser(net, "eps", "learned")


@pytest.fixture
def x(rng):
    return torch.randn(3, 2, 4, 4, generator=rng, dtype=torch.float64)


@pytest.fixture
def conditions(rng):
    """(unconditional, conditional), [3, 1, 1, 1] each."""
    return torch.rand(2, 3, 1, 1, 1, generator=rng, dtype=torch.float64)


def test_one_batch_is_two_calls(denoise, x, conditions):
    absent, given = (denoise(x, AT, c=c) for c in conditions)
    both = CFG(denoise, 3.0)(x, AT, c=torch.cat([*conditions]))
    torch.testing.assert_close(both.x0, absent.x0 + 3 * (given.x0 - absent.x0))
    assert torch.equal(both.frac, given.frac)  # trap: the variance stays the conditional half's
    assert not torch.equal(given.frac, absent.frac)


def test_the_network_runs_once(denoise, x, conditions):
    calls = []
    once = Denoiser(lambda x, t, c: calls.append(len(x)) or net(x, t, c), variance="learned")
    CFG(once, 3.0)(x, AT, c=torch.cat([*conditions]))
    assert calls == [6]


def test_unconditional_half_comes_first(denoise, x, conditions):
    """Trap: GLIDE and Karlo put the conditional half first. Scales 0 and 1 give the halves back, to the bit."""
    both = denoise(torch.cat([x, x]), AT, c=torch.cat([*conditions]))
    for scale in (0.0, 1.0):
        half = both.x0[3:] if scale else both.x0[:3]
        assert torch.equal(CFG(denoise, scale)(x, AT, c=torch.cat([*conditions])).x0, half)


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_mixing_x0_mixes_eps(denoise, x, conditions, scale):
    guided = CFG(denoise, scale)(x, AT, c=torch.cat([*conditions]))
    eps = (x - AT.alpha * guided.x0) / AT.sigma
    absent, given = (torch.tanh(x + c) for c in conditions)
    torch.testing.assert_close(eps, absent + scale * (given - absent))


def test_fixed_variance_stays_a_number(x):
    plain = Denoiser(lambda x, t: x, variance="large")
    assert CFG(plain, 2.0)(x, AT).frac == 1.0


def test_clip(denoise, x, conditions):
    est = denoise(x, AT, c=conditions[0])
    clipped = Clip(denoise, -0.5, 0.25)(x, AT, c=conditions[0])
    assert torch.equal(clipped.x0, est.x0.clamp(-0.5, 0.25))
    assert torch.equal(clipped.frac, est.frac)
    assert clipped.x0.max() == 0.25


def test_threshold_is_per_image():
    """Imagen, section 2.3: an image within [-1, 1] is kept; one beyond is clipped at its quantile and scaled."""
    inside = torch.linspace(-0.9, 0.9, 401, dtype=torch.float64)
    est = Estimate(torch.stack([inside, 4 * inside]))
    got = Threshold(lambda x, at: est, 0.5)(est.x0, AT).x0
    torch.testing.assert_close(got[0], inside)
    torch.testing.assert_close(got[1], (4 * inside / 1.8).clamp(-1, 1))  # the median of |4 x| is 1.8
    assert (got[1].abs() == 1).sum() == 202  # half of them, and both of the quantile itself


def test_guide_on_the_noisy_x(denoise, x, conditions):
    seen = []

    def log_prob(x, at):
        seen.append(at.t)
        return -(x**2).sum((1, 2, 3)) / 2

    twice = Guide(Guide(denoise, log_prob, 2.0), log_prob, 0.5)  # gradients of two guides add
    est = twice(x, AT, c=conditions[0])
    torch.testing.assert_close(est.grad, -2.5 * x)
    assert torch.equal(est.x0, denoise(x, AT, c=conditions[0]).x0)
    assert seen[0].tolist() == [399] * 3
    assert not x.requires_grad


def test_guide_through_the_denoiser(denoise, x, conditions):
    log_prob = lambda x0, at: -(x0**2).sum((1, 2, 3)) / 2  # noqa: E731
    est = Guide(denoise, log_prob, 1.5, through=True)(x, AT, c=conditions[0])
    value = lambda x: log_prob(denoise(x, AT, c=conditions[0]).x0, AT).sum()  # noqa: E731
    torch.testing.assert_close(est.grad, 1.5 * torch.autograd.functional.jacobian(value, x))
    assert not any(v.requires_grad for v in (est.x0, est.frac, est.grad))


def test_guide_in_inference_mode(denoise, x, conditions):
    log_prob = lambda x, at: -(x**2).sum((1, 2, 3)) / 2  # noqa: E731
    with torch.inference_mode():
        est = Guide(Clip(CFG(denoise, 2.0)), log_prob)(x + 0, AT, c=torch.cat([*conditions]))
    torch.testing.assert_close(est.grad, -x)
    assert est.x0.abs().max() <= 1
