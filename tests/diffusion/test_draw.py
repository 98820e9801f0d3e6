import pytest
import torch

from unclip.diffusion import Draw, white
from unclip.errors import UnclipError


def test_an_image_does_not_depend_on_its_batch():
    draw = Draw([3, 1, 4], "decoder")
    first, second = draw((3, 8, 8)), draw((3, 8, 8))
    assert not torch.equal(first, second)
    for i, seed in enumerate([3, 1, 4]):
        alone = Draw([seed], "decoder")
        assert torch.equal(alone((3, 8, 8))[0], first[i])
        assert torch.equal(alone((3, 8, 8))[0], second[i])


def test_noise_does_not_follow_memory_layout():
    """Trap: randn_like fills memory in order, so channels-last input would see other noise."""
    x = torch.empty(2, 3, 8, 8)
    last = x.to(memory_format=torch.channels_last)
    assert torch.equal(Draw([0, 1], "a").like(x), Draw([0, 1], "a").like(last))
    noise = []
    for v in (x, last):
        torch.manual_seed(0)
        noise.append(white(v))
    assert torch.equal(*noise)


def test_streams_are_independent():
    """A stage's noise is its own: neither equal to another's nor moved by how much another draws."""
    prior, decoder = Draw([5], "prior"), Draw([5], "decoder")
    assert not torch.equal(prior((16,)), decoder((16,)))
    again = Draw([5], "decoder")
    again((16,))
    for _ in range(3):
        prior((16,))
    assert torch.equal(decoder((16,)), again((16,)))


def test_noise_is_white():
    z = torch.cat([Draw(range(100), s)((400,)) for s in ("prior", "decoder")])
    covariance = z @ z.T / 400  # neighbouring seeds and streams: 200 of them, each pair uncorrelated
    assert (covariance - torch.eye(200)).abs().max() < 5.5 / 400**0.5 * 2**0.5


def test_the_hash_is_for_ever():
    assert Draw.hash(0, "prior") == 16484502653137011098
    assert Draw.hash(2**64, "prior") != Draw.hash(0, "prior")


def test_like_takes_dtype_and_checks_batch():
    assert Draw([0, 1], "a")(torch.empty(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert Draw([0, 1], "a")((4,)).dtype == torch.float32
    with pytest.raises(UnclipError, match="a batch of 3 needs as many seeds, not 2"):
        Draw([0, 1], "a").like(torch.empty(3, 4))
