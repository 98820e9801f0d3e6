"""Great circles: against closed forms in the plane, and where they have none."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unclip.edit import blend, slerp


def test_in_the_plane_it_is_an_angle():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    for theta in (0.0, 0.25, 1 / 3, 0.9, 1.0):
        angle, norm = theta * math.pi / 2, 2 + 2 * theta
        expected = torch.tensor([norm * math.cos(angle), norm * math.sin(angle)])
        torch.testing.assert_close(slerp(a, b, theta), expected)


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([(7,), (1, 16), (1, 3, 4, 4)]))
def test_norms_are_kept_and_angles_shared(seed, theta, shape):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.nn.functional.normalize(torch.randn(shape, generator=g, dtype=torch.float64).flatten(), dim=0)
            .reshape(shape) for _ in range(2))  # fmt: skip
    c = slerp(a, b, theta)
    whole, part = ((a * v).sum().clamp(-1, 1).acos() for v in (b, c))
    assert c.norm().item() == pytest.approx(1)
    assert part.item() == pytest.approx(theta * whole.item(), abs=1e-6)


def test_it_is_the_whole_vector_not_each_element():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(slerp(a, b, 0.5), torch.full((2, 2), 0.5**0.5))


@pytest.mark.parametrize("theta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("times", [1, -1, -2], ids=["equal", "opposite", "longer"])
def test_equal_and_opposite_vectors(times, theta):
    a = torch.tensor([3.0, 4.0, 0.0])
    b = times * a
    c = slerp(a, b, theta)
    assert c.isfinite().all()
    assert c.norm().item() == pytest.approx((1 - theta) * 5 + theta * b.norm().item())
    cosine = math.cos(theta * math.pi) if times < 0 else 1
    assert (c @ a).item() / c.norm().item() == pytest.approx(5 * cosine, abs=1e-5)


def test_the_ends_are_exact():
    g = torch.Generator().manual_seed(0)
    for b in (torch.randn(50, generator=g), torch.zeros(50)):
        a = torch.randn(50, generator=g)
        assert torch.equal(slerp(a, b, 0), a)
        assert torch.equal(slerp(a, b, 1), b)
        assert slerp(a, b, 0.5).isfinite().all()


def test_a_blend_of_two_is_a_slerp_and_one_alone_is_itself():
    g = torch.Generator().manual_seed(0)
    vectors = [torch.randn(9, generator=g) for _ in range(3)]
    torch.testing.assert_close(blend(vectors[:2], [0.25, 0.75]), slerp(*vectors[:2], 0.75))
    torch.testing.assert_close(blend(vectors[:2], [1, 3]), slerp(*vectors[:2], 0.75))
    for k in range(3):
        assert torch.equal(blend(vectors, [float(i == k) for i in range(3)]), vectors[k])


def test_on_one_circle_a_blend_is_the_mean_of_angles():
    g = torch.Generator().manual_seed(0)
    u, v = torch.linalg.qr(torch.randn(9, 2, generator=g, dtype=torch.float64)).Q.T
    angles, norms, weights = (0.2, 0.5, 1.4, 1.9), (1, 2, 3, 4), (4, 3, 2, 1)
    vectors = [norm * (math.cos(a) * u + math.sin(a) * v) for a, norm in zip(angles, norms, strict=True)]
    angle = sum(w * a for w, a in zip(weights, angles, strict=True)) / 10
    expected = 2 * (math.cos(angle) * u + math.sin(angle) * v)  # the norms' mean is (4 + 6 + 6 + 4) / 10
    torch.testing.assert_close(blend(vectors, weights), expected)


def test_a_blend_of_the_axes_by_symmetry():
    mean = blend(list(torch.eye(4)[:, :, None]), [1, 1, 1, 1])
    torch.testing.assert_close(mean, torch.full((4, 1), 0.5))


@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_a_blend_has_no_say(seed, order):
    g = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(2, 3, generator=g, dtype=torch.float64) for _ in range(4)]
    weights = torch.rand(4, generator=g).tolist()
    mean, again = (blend([vectors[i] for i in o], [weights[i] for i in o]) for o in (range(4), order))
    torch.testing.assert_close(again, mean, rtol=1e-6, atol=1e-6)


def test_a_blend_of_equal_opposite_and_absent_vectors():
    a, b, none = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.0, 0.0, 5.0]), torch.zeros(3)
    torch.testing.assert_close(blend([a, a, a], [1, 2, 3]), a)
    torch.testing.assert_close(blend([a, b, -a], [1, 1, 1]), b)
    torch.testing.assert_close(blend([a, none, a], [1, 2, 1]), a / 2)
    assert blend([a, -a, b, -b], [1, 1, 1, 1]).norm().item() == pytest.approx(5)
    assert blend([none, none, none], [1, 1, 1]).norm() == 0
