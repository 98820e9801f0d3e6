"""Few-step students against exact teachers: what they must say, and that one who learns it says it."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from unclip.diffusion import CFG, Denoiser, Estimate, Levels, cosine, landing, move, renoise, shortcut, strides, walk

LEVELS = Levels.from_betas(cosine(1000)).spaced(strides(1000, 16))  # data and 16 noisy rows


def exact(mixture):
    """The mixture's denoiser, of x in any precision and at a batch of levels."""

    def denoise(x, at):
        x0 = torch.empty_like(x)
        for t in at.t.unique():
            (rows,) = (at.t.expand(len(x)) == t).nonzero(as_tuple=True)
            x0[rows] = mixture(x[rows].double(), LEVELS[int((LEVELS.t == t).nonzero())]).x0.to(x)
        return Estimate(x0)

    return denoise


def test_strides_cut_into_equal_parts():
    assert strides(1000, 4) == [250, 500, 750, 1000]
    assert strides(1000, 3) == [333, 667, 1000]
    assert strides(5, 5) == [1, 2, 3, 4, 5]
    assert set(strides(1000, 4)) < set(strides(1000, 32))  # a student's steps are some of its teacher's


@pytest.mark.parametrize(("at", "to"), [(16, 8), (9, 8), (16, 0), (1, 0)])
def test_landing_is_the_inverse_of_a_move(at, to, rng):
    x, y = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64)
    x0 = landing(x, y, LEVELS[at], LEVELS[to])
    torch.testing.assert_close(move(x, x0, LEVELS[at], LEVELS[to]), y)


def test_two_moves_in_one(mixture, rng):
    x = torch.randn(3, 2, generator=rng, dtype=torch.float64)
    at, mid, to = (LEVELS[torch.tensor(i)] for i in ([16, 9, 2], [12, 8, 0], [8, 8, 0]))
    teacher = exact(mixture)
    x0 = shortcut(teacher, teacher, x, at, mid, to)
    y = move(x, x0, at.like(x), to.like(x))
    for k, rows in enumerate([(16, 12, 8), (9, 8), (2, 0)]):  # the other two arrive with their first move
        torch.testing.assert_close(y[k : k + 1], via(mixture, x[k : k + 1], rows))


def via(denoise, x, steps):
    """Where DDIM leads by way of these rows."""
    for a, b in pairwise(steps):
        x = move(x, denoise(x, LEVELS[a]).x0, LEVELS[a], LEVELS[b])
    return x


class Affine:
    """A student for Gaussian data: at each level its own affine map from x to x0, fitted by least squares."""

    def __init__(self):
        self.maps = {}

    def fit(self, i: int, target, rng) -> None:
        x = torch.randn(8, 2, generator=rng, dtype=torch.float64)
        self.maps[LEVELS.t[i].item()] = torch.linalg.lstsq(nn.functional.pad(x, (0, 1), value=1), target(x)).solution

    def __call__(self, x, at):
        t = at.t.expand(len(x)).tolist()
        ones = nn.functional.pad(x, (0, 1), value=1)
        return Estimate(torch.cat([row[None] @ self.maps[k] for row, k in zip(ones, t, strict=True)]))


def rows(*numbers: int) -> list[Levels]:
    return [LEVELS[torch.tensor([i] * 8)] for i in numbers]


def end(denoise, x, steps):
    """Where DDIM leads from noise to data over these rows."""
    return via(denoise, x, [*reversed(steps), 0])


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_a_consistency_student_that_has_learnt_all_is_its_teachers_walk(gaussian, rng, segments):
    """Learnt level by level, from data up, each from what is known below it: exact, since all maps are affine."""
    student, length = Affine(), 16 // segments
    teacher = exact(gaussian)
    for i in range(1, 17):
        path, second = rows(i, i - 1, (i - 1) // length * length), student if (i - 1) % length else teacher
        student.fit(i, lambda x, path=path, second=second: shortcut(teacher, second, x, *path), rng)
    x = torch.randn(6, 2, generator=rng, dtype=torch.float64)
    few = range(length, 17, length)
    torch.testing.assert_close(end(student, x, few), end(gaussian, x, range(1, 17)), rtol=1e-6, atol=1e-8)
    assert (end(gaussian, x, few) - end(gaussian, x, range(1, 17))).abs().max() > 0.01  # the teacher itself cannot


def test_progressive_students_that_have_learnt_all_are_their_teachers_walk(gaussian, rng):
    teacher, stride = exact(gaussian), 1
    x = torch.randn(6, 2, generator=rng, dtype=torch.float64)
    while stride < 16:
        student, stride = Affine(), 2 * stride
        for i in range(stride, 17, stride):
            path = rows(i, i - stride // 2, i - stride)
            student.fit(i, lambda x, path=path, teacher=teacher: shortcut(teacher, teacher, x, *path), rng)
        torch.testing.assert_close(end(student, x, range(stride, 17, stride)), end(gaussian, x, range(1, 17)))
        teacher = student


def test_guidance_becomes_part_of_the_student(gaussian, rng):
    """A guided teacher: x0 beyond the conditional mean. The target is what its own guided walk leads to."""
    halves = lambda x, at, shift: Estimate(exact(gaussian)(x, at).x0 + shift)  # noqa: E731
    shift = torch.cat([torch.zeros(8, 2), torch.ones(8, 2)]).double()
    guided = partial(CFG(halves, 3.0), shift=shift)
    x = torch.randn(8, 2, generator=rng, dtype=torch.float64)
    y = move(x, shortcut(guided, guided, x, *rows(16, 12, 8)), LEVELS[16], LEVELS[8])
    plain = lambda x, at: Estimate(gaussian(x, at).x0 + 3)  # noqa: E731
    torch.testing.assert_close(y, via(plain, x, (16, 12, 8)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))

    def forward(self, x, t):
        t = t[:, None] / 1000
        return self.layers(torch.cat([x, t, t.sin()], dim=1))


@pytest.mark.slow
def test_a_small_network_learns_one_call_from_an_exact_mixture(mixture):
    """By consistency of one segment; then `renoise` draws in one call or in four, near the data either way."""
    torch.manual_seed(0)
    student = Denoiser(Net(), "x0")
    steps = torch.optim.Adam(student.parameters(), 3e-3)
    teacher = exact(mixture)
    data = mixture.draw(20_000, torch.Generator().manual_seed(1)).float()
    for k in range(1200):
        x0 = data[torch.randint(len(data), (256,))]
        i = torch.randint(1, 17, (256,))
        at = LEVELS[i]
        x = at.like(x0).alpha.float() * x0 + at.like(x0).sigma.float() * torch.randn_like(x0)
        target = shortcut(teacher, student, x, at, LEVELS[i - 1], LEVELS[torch.zeros_like(i)])
        loss = (student(x, at).x0 - target).square().mean()
        loss.backward()
        for group in steps.param_groups:
            group["lr"] = 3e-3 * min(1, (1200 - k) / 600)
        steps.step()
        steps.zero_grad()
    mean, covariance = mixture.moments
    noise = torch.randn(4000, 2)
    with torch.no_grad():
        for calls in (1, 4):
            path = Levels.from_betas(cosine(1000)).spaced(strides(1000, calls)).down()
            for x, _ in walk(student, noise, path, renoise):
                pass
            torch.testing.assert_close(x.mean(0).double(), mean, rtol=0, atol=0.08)
            torch.testing.assert_close(x.T.cov().double(), covariance, rtol=0, atol=0.12)
        one = student(noise, LEVELS[16]).x0
        many = end(teacher, noise, range(1, 17))
        assert (one - many).square().mean() < 0.25 * (teacher(noise, LEVELS[16]).x0 - many).square().mean()
