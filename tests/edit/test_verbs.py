"""Manipulations on a tiny pipeline: what must equal what, whatever the weights."""

import numpy as np
import pytest
import torch

from unclip.errors import UnclipError
from unclip.pictures import to_tensor

FEW = {"steps": 4, "size": 16, "progress": False, "prior_steps": 2, "upsampler_steps": 1}


def far(a, b) -> float:
    """The largest difference of two pictures, in steps of 1/255."""
    return (to_tensor(a) - to_tensor(b)).abs().max().item() * 127.5


@pytest.fixture
def back(tiny, disc, box):
    return [tiny.reconstruct(tiny.invert(image, **FEW), **FEW).images[0] for image in (disc, box)]


def test_a_round_trip(tiny, disc):
    """Random networks are no denoisers, so the published way fails on them; each step can still be solved."""
    plain, solved = (tiny.reconstruct(disc, calls=calls, **FEW).images[0] for calls in (1, 12))
    assert far(plain, disc) > 2 * far(solved, disc)


def test_theta_0_and_eta_0_are_the_reconstruction(tiny, disc, back):
    frames = tiny.text_diff(disc, "a blue cat", theta=0.5, frames=3, **FEW)
    assert far(frames.images[0], back[0]) == 0
    assert far(frames.images[2], back[0]) > 0
    assert frames.prompts[0] == "a blue cat (theta 0)"
    assert far(tiny.variations(disc, 1, eta=0, **FEW).images[0], back[0]) == 0


def test_where_a_text_diff_leads(tiny, disc):
    """The paper's z_d by CLIP; by the prior, with theta 1 and no base, the mean of what it draws."""
    z_t = tiny.read(["a blue cat", "a red fox"])[2]
    drawn = tiny.text_diff(disc, "a blue cat", "a red fox", theta=1, frames=2, by="clip", **FEW)
    torch.testing.assert_close(drawn.embeddings[1], torch.nn.functional.normalize(z_t[0] - z_t[1], dim=0))
    drawn = tiny.text_diff(disc, "a blue cat", theta=1, frames=2, seed=3, **FEW)
    mean = tiny.generate("a blue cat", 4, seed=3, **FEW).embeddings.mean(0)
    torch.testing.assert_close(drawn.embeddings[1], torch.nn.functional.normalize(mean, dim=0))


@pytest.mark.parametrize("x_T", ["slerp", "fixed"])
def test_the_ends_of_an_interpolation(tiny, disc, box, back, x_T):
    drawn = tiny.interpolate([disc, box], frames=3, x_T=x_T, **FEW)
    assert far(drawn.images[0], back[0]) == 0
    assert (far(drawn.images[2], back[1]) == 0) == (x_T == "slerp")
    ends = torch.cat([tiny.invert(image, **FEW).z_i for image in (disc, box)])
    torch.testing.assert_close(drawn.embeddings[[0, 2]], ends)
    torch.testing.assert_close(drawn.embeddings.norm(dim=1), torch.ones(3))
    half = torch.nn.functional.normalize(ends.sum(0), dim=0)
    torch.testing.assert_close(drawn.embeddings[1], half)


def test_three_stops_and_weights(tiny, disc, box, back):
    drawn = tiny.interpolate([disc, box], ["a red fox"], frames=5, **FEW)
    assert far(drawn.images[0], back[0]) == far(drawn.images[2], back[1]) == 0
    text = tiny.interpolate([disc, box], ["a red fox"], weights=[0, 0, 3], **FEW)
    assert far(text.images[0], drawn.images[4]) == 0
    assert far(tiny.interpolate([disc, box], weights=[0, 2], **FEW).images[0], back[1]) == 0


def test_the_spacing_of_the_steps_counts(tiny, disc, back):
    drawn = tiny.reconstruct(disc, spacing="karras", **FEW).images[0]
    assert far(drawn, back[0]) > 0
    changed = [tiny.img2img(disc, "x", spacing=spacing, **FEW).images[0] for spacing in ("even", "karras")]
    assert far(*changed) > 0


def test_a_text_stop_is_what_the_prior_draws(tiny, disc):
    drawn = tiny.interpolate([disc], ["a red fox"], frames=2, seed=5, **FEW)
    generated = tiny.generate("a red fox", seed=5, **FEW)
    torch.testing.assert_close(drawn.embeddings[1], generated.embeddings[0])


def test_variations_differ_by_seed_alone(tiny, disc):
    many = tiny.variations(disc, 3, seed=4, **FEW)
    assert many.seeds == [4, 5, 6]
    assert len({image.tobytes() for image in many.images}) == 3
    assert far(tiny.variations(disc, 1, seed=5, **FEW).images[0], many.images[1]) == 0
    assert len({tuple(z.tolist()) for z in many.embeddings}) == 1


def test_all_components_are_the_picture_and_none_the_mean(tiny, disc, back, rng):
    others = torch.nn.functional.normalize(torch.randn(40, 16, generator=rng), dim=1)
    drawn = tiny.pca_probe(disc, others, dims=[0, 3, 16], **FEW)
    assert far(drawn.images[2], back[0]) <= 1
    mean = torch.nn.functional.normalize(others.mean(0), dim=0)
    torch.testing.assert_close(drawn.embeddings[0], mean)
    with pytest.raises(UnclipError, match="dims is 17; it must be a whole number from 0 to 16"):
        tiny.pca_probe(disc, others, dims=[17], **FEW)


def test_the_strength_of_img2img(tiny, disc):
    assert far(tiny.img2img(disc, "a blue cat", strength=0, **FEW).images[0], disc) == 0
    weak, strong = (tiny.img2img(disc, "a blue cat", strength=s, **FEW).images[0] for s in (0.05, 1.0))
    assert np.abs(np.asarray(weak, float) - np.asarray(disc)).mean() < np.abs(
        np.asarray(strong, float) - np.asarray(disc)).mean()  # fmt: skip
    full = tiny.generate("a blue cat", **FEW).images[0]
    assert far(strong, full) <= 2  # nothing of the picture is left


def test_a_pair_stands_for_its_picture(tiny, disc):
    pair = tiny.invert(disc, **FEW)
    one, other = (tiny.text_diff(source, "x", frames=2, **FEW).images[1] for source in (pair, disc))
    assert far(one, other) == 0
    with pytest.raises(UnclipError, match="needs the picture itself"):
        tiny.img2img(pair, "a red fox", **FEW)


def test_progress_tells_of_every_step(tiny, disc):
    told = []
    tiny.variations(disc, 2, callback=told.append, **(FEW | {"size": 64}))
    assert [(p.stage, p.image, p.step) for p in told] == [
        *[("invert", 0, k) for k in (1, 2, 3)],
        *[("decoder", 0, k) for k in (1, 2, 3)], ("upsampler", 0, 1),
        *[("decoder", 1, k) for k in (1, 2, 3)], ("upsampler", 1, 1),
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, p: s.interpolate([p], **FEW), "an interpolation needs two pictures, or a picture and a text"),
        (lambda s, p: s.interpolate([p, p], x_T="lerp", **FEW), "x_T is .lerp.; choose slerp"),
        (lambda s, p: s.interpolate([p, p], weights=[1], **FEW), "give 2 of them"),
        (lambda s, p: s.interpolate([p, p], weights=[1, -1], **FEW), "none below 0"),
        (lambda s, p: s.interpolate([p, p], weights=[0, 0], **FEW), "not all 0"),
        (lambda s, p: s.interpolate([p, p], frames=1, **FEW), "frames is 1"),
        (lambda s, p: s.text_diff(p, "x", theta=1.5, **FEW), "theta is 1.5; it must be from 0"),
        (lambda s, p: s.text_diff(p, "x", theta=float("nan"), **FEW), "theta is nan"),
        (lambda s, p: s.text_diff(p, " ", **FEW), "the text is empty"),
        (lambda s, p: s.interpolate([p], [""], **FEW), "a text is empty"),
        (lambda s, p: s.text_diff(p, "x", by="gan", **FEW), "by is .gan.; choose prior or clip"),
        (lambda s, p: s.variations(p, eta=-1, **FEW), "eta is -1; it must be from 0 to 1"),
        (lambda s, p: s.img2img(p, "x", strength=2, **FEW), "strength is 2"),
        (lambda s, p: s.img2img(p, " ", **FEW), "the prompt is empty"),
        (lambda s, p: s.invert(p, calls=0, **FEW), "calls is 0"),
        (lambda s, p: s.variations(p, 0, **FEW), "n is 0"),
    ],
)
def test_errors(tiny, disc, call, message):
    with pytest.raises(UnclipError, match=message):
        call(tiny, disc)
