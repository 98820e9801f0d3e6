import pytest
import torch

from unclip.diffusion import (
    CFG,
    Clip,
    Denoiser,
    Estimate,
    Guide,
    Interval,
    Levels,
    Rescale,
    Threshold,
    Unguided,
    classified,
    cosine,
    ddim,
    ddpm,
    karras,
    resembling,
    spread,
    walk,
)

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


# ---- against closed form: the guided mixture is the mixture weighed anew ---------------------------------------

Y, Z = [0.9, 0.2, 0.05], [0.1, 0.6, 0.8]  # p(y | k), p(z | k): what a caption and a picture's embedding may tell of x


class Branches:
    """A denoiser of a batch of several parts, a mixture for each."""

    def __init__(self, *mixtures):
        self.mixtures = mixtures

    def __call__(self, x, at, which=slice(None)):
        parts = x.chunk(len(self.mixtures[which]))
        return Estimate(torch.cat([m(v, at).x0 for m, v in zip(self.mixtures[which], parts, strict=True)]))


def knows(mixture, factor):
    """x, at -> log p(y | x_t), exactly."""
    return lambda x, at: (mixture.log_share(x, at).exp() @ torch.tensor(factor, dtype=torch.float64)).log()


@pytest.fixture
def points(rng):
    return torch.randn(64, 2, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("row", [30, 400, 900])
def test_an_exact_classifier_weighs_the_mixture_anew(mixture, points, row):
    """Bayes: grad log p(x_t) + grad log p(y | x_t) = grad log p(x_t | y), so the guided estimate is E[x0 | x_t, y]."""
    at = COSINE[row]
    guided = Guide(mixture, knows(mixture, Y))(points, at)
    torch.testing.assert_close(guided.spend(at), mixture.weighed(Y)(points, at).x0)


@pytest.mark.parametrize("row", [30, 400, 900])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_cfg_is_classifier_guidance(mixture, points, scale, row):
    """Ho & Salimans, section 3.2: mixing the two scores is to scale the gradient of the classifier they imply."""
    at = COSINE[row]
    implied = Guide(mixture, knows(mixture, Y), scale)(points, at).spend(at)
    guided = CFG(Branches(mixture, mixture.weighed(Y)), scale)(points, at)
    torch.testing.assert_close(guided.x0, implied)
    torch.testing.assert_close(guided.plain, mixture.weighed(Y)(points, at).x0)


@pytest.mark.parametrize("row", [30, 400, 900])
def test_a_scale_for_each_condition(mixture, points, row):
    """Three branches, p(x), p(x | z), p(x | z, y), are two classifiers, p(z | x) and p(y | x, z), each scaled."""
    at, given_z = COSINE[row], mixture.weighed(Z)
    both = given_z.weighed(Y)
    branches = Branches(mixture, given_z, both)
    two = Guide(Guide(mixture, knows(mixture, Z), 2.0), knows(given_z, Y), 0.5)
    torch.testing.assert_close(CFG(branches, 2.0, 0.5)(points, at).x0, two(points, at).spend(at))
    torch.testing.assert_close(CFG(branches, 1.0, 1.0)(points, at).x0, both(points, at).x0)
    torch.testing.assert_close(CFG(branches, 1.0, 0.0)(points, at).x0, given_z(points, at).x0)
    torch.testing.assert_close(CFG(branches, 0.0, 0.0)(points, at).x0, mixture(points, at).x0)


def test_a_negative_prompt_weighs_against(mixture, points):
    """What stands in the absent half is divided out: p(x | y)^s p(x | not)^(1 - s) of two Gaussians of one width is a
    Gaussian about m_y + (s - 1)(m_y - m_not)."""
    at, s = COSINE[400], 2.5
    no, yes = ([1.0, 0.5], [-0.5, 0.1])
    kind = type(mixture)
    away = [y + (s - 1) * (y - n) for y, n in zip(yes, no, strict=True)]
    guided = CFG(Branches(kind([1.0], [no], [0.3]), kind([1.0], [yes], [0.3])), s)(points, at)
    torch.testing.assert_close(guided.x0, kind([1.0], [away], [0.3])(points, at).x0)


@pytest.mark.parametrize(("step", "count"), [(ddim(), 100), (ddpm, 150)], ids=["ddim", "ddpm"])
def test_guided_sampling_draws_the_mixture_weighed_anew(mixture, rng, step, count):
    n, randn = 3000, lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)
    x = randn(torch.empty(n, 2, dtype=torch.float64))
    for x, _ in walk(Guide(mixture, knows(mixture, Y)), x, COSINE.spaced(spread(1000, count)).down(), step, randn):
        pass
    mean, cov = mixture.weighed(Y).moments
    bias = 0.01  # of so many steps
    assert ((x.mean(0) - mean).abs() < bias + 4 * (cov.diag() / n).sqrt()).all()
    assert ((x.T.cov() - cov).abs() < bias + 4 * (cov.diag().outer(cov.diag()) + cov**2).div(n).sqrt()).all()


def test_a_noised_classifier_as_a_network(mixture, points):
    at = COSINE[400]
    net = lambda x, t: mixture.log_share(x, COSINE[t[0] + 1]) + 7.0  # noqa: E731  logits: any constant goes
    y = torch.arange(64) % 3
    guided = Guide(mixture, classified(net, y))(points, at).spend(at)
    for k in range(3):
        only = [float(i == k) for i in range(3)]
        torch.testing.assert_close(guided[y == k], mixture.weighed(only)(points[y == k], at).x0)


def test_a_noised_clip_pulls_towards_its_embedding(points):
    """GLIDE, eq. 6: the gradient of f(x_t) . z, for an f that is linear."""
    A, z = torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double(), torch.tensor([[0.6, 0.8]]).double().expand(64, 2)
    est = Guide(lambda x, at: Estimate(x), resembling(lambda x, t: x @ A, z), 3.0)(points, AT)
    torch.testing.assert_close(est.grad, 3.0 * z @ A.T)


def test_a_classifier_that_has_learnt(mixture, rng):
    """A small network trained on noised x to tell the component, and no more, guides to that component."""
    from torch import nn

    torch.manual_seed(0)
    levels = COSINE.spaced(karras(COSINE, 20))
    trained = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3)).double()

    def net(x, t):
        return trained(torch.cat([x, t[:, None] / 500 - 1], 1))

    optimiser = torch.optim.Adam(trained.parameters(), 5e-3)
    for _ in range(300):
        k = torch.multinomial(mixture.weight, 256, replacement=True, generator=rng)
        noise = torch.randn(2, 256, 2, generator=rng, dtype=torch.float64)
        at = levels[torch.randint(1, 21, (256,), generator=rng)].like(noise[0])
        x = at.alpha * (mixture.mean[k] + mixture.std[k, None] * noise[0]) + at.sigma * noise[1]
        nn.functional.cross_entropy(net(x, at.t), k).backward()
        optimiser.step()
        optimiser.zero_grad()
    x = torch.randn(300, 2, generator=rng, dtype=torch.float64)
    guided = Guide(mixture, classified(net, torch.full((300,), 2)))
    for x, _ in walk(guided, x, levels.down(), ddim()):
        pass
    assert (mixture.log_share(x, COSINE[1]).argmax(1) == 2).double().mean() > 0.9
    assert x.mean(0).tolist() == pytest.approx(mixture.mean[2].tolist(), abs=0.15)


# ---- when and how much ----------------------------------------------------------------------------------------


def test_interval(mixture, points):
    """Inside the interval guided; outside the last branch alone, at the cost of one branch."""
    branches, calls = Branches(mixture, mixture.weighed(Y)), []

    def counted(x, at, which=slice(None)):
        calls.append(len(x))
        return branches(x, at, which)

    alone = lambda x, at: counted(x, at, slice(1, 2))  # noqa: E731
    denoise = Interval(CFG(counted, 3.0), alone, 200, 600)
    for row, inside in ((201, True), (601, True), (200, False), (602, False)):  # row t is called time t - 1
        at = COSINE[row]
        want = CFG(branches, 3.0)(points, at).x0 if inside else mixture.weighed(Y)(points, at).x0
        assert torch.equal(denoise(points, at).x0, want)
    assert calls == [128, 128, 64, 64]


def test_unguided_is_the_last_branch(denoise, x, conditions):
    both = torch.cat([*conditions])
    assert torch.equal(Unguided(denoise)(x, AT, c=both).x0, denoise(x, AT, c=conditions[1]).x0)
    seen = {}
    keep = lambda x, at, **cond: seen.update(cond)  # noqa: E731
    Unguided(keep, 3)(x, AT, given=[(both, None), {"a": torch.arange(9)}])
    assert torch.equal(seen["given"][0][0], both[4:])
    assert seen["given"][0][1] is None
    assert seen["given"][1]["a"].tolist() == [6, 7, 8]


def test_rescale(denoise, x, conditions):
    """Lin et al., eq. 14-16: as far as `share` says, x0 gets the deviation back that it had before guidance."""
    both = {"c": torch.cat([*conditions])}
    guided, plain = CFG(denoise, 5.0)(x, AT, **both), Unguided(denoise)(x, AT, **both).x0
    deviation = lambda v: v.flatten(1).std(1)  # noqa: E731
    whole = Rescale(CFG(denoise, 5.0), 1.0)(x, AT, **both).x0
    torch.testing.assert_close(deviation(whole), deviation(plain))
    assert (deviation(guided.x0) / deviation(plain) - 1).abs().max() > 0.01
    half = Rescale(CFG(denoise, 5.0), 0.5)(x, AT, **both).x0
    torch.testing.assert_close(half, (whole + guided.x0) / 2)
    assert Rescale(denoise, 1.0)(x, AT, c=conditions[0]).x0.equal(denoise(x, AT, c=conditions[0]).x0)
