"""Inpainting: known pixels stay to the bit, masks in all their forms, and the draw is of what is missing."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.diffusion import Estimate, Levels
from unclip.diffusion.guidance import Known
from unclip.diffusion.levels import cosine, spread
from unclip.edit.fill import harmonised, hole
from unclip.errors import UnclipError
from unclip.pictures import flat

FEW = {"steps": 3, "prior_steps": 2, "upsampler_steps": 1, "progress": False}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(16, 16), (40, 25), (7, 90)], ids=str)
@pytest.mark.parametrize("prompt", ["", "a red fox"])
def test_known_pixels_are_kept(tiny, size, prompt):
    image, (w, h) = noise(*size), size
    box = (0, 0, w // 2, h)
    first, second = tiny.inpaint(image, box, prompt, 2, **FEW).images
    assert first.size == second.size == size
    before, a, b = (np.asarray(i) for i in (image, first, second))
    assert (a[:, w // 2 :] == before[:, w // 2 :]).all()
    assert (a[:, : w // 2] != before[:, : w // 2]).any()
    assert (a != b).any()


def test_outpainting_keeps_the_picture(tiny):
    image = noise(20, 12)
    (out,) = tiny.outpaint(image, left=5, bottom=9, **FEW).images
    assert out.size == (25, 21)
    assert (np.asarray(out)[:12, 5:] == np.asarray(image)).all()


def test_masks_in_their_forms():
    image = noise(8, 6)
    white = Image.new("L", (8, 6), 0)
    white.paste(255, (2, 1, 5, 4))
    clear = image.convert("RGBA")
    clear.putalpha(white.point(lambda v: 255 - v))
    expected = white.tobytes()
    forms = [(image, (2, 1, 5, 4)), (image, [2, 1, 5, 4]), (image, white), (image, white.convert("1")),
             (image, white.convert("RGB")), (image, clear), (clear, None)]  # fmt: skip
    for picture, mask in forms:
        assert hole(picture, mask).tobytes() == expected


def test_the_mask_may_be_a_file(tmp_path):
    mask = Image.new("L", (8, 6), 0)
    mask.putpixel((3, 3), 255)
    mask.save(tmp_path / "mask.png")
    assert hole(noise(8, 6), tmp_path / "mask.png").tobytes() == mask.tobytes()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "no transparent part"),
        (Image.new("L", (8, 7), 255), "the mask is 8×7, the picture 8×6"),
        (Image.new("L", (8, 6), 0), "the mask is empty"),
        (Image.new("L", (8, 6), 255), "the mask covers the whole picture"),
        ((0, 0, 8, 6), "the mask covers the whole picture"),
        ((0, 0, 9, 6), "the box is .0, 0, 9, 6.; give left, top, right, bottom within 8×6"),
        ((3, 0, 3, 6), "the box is"),
        ((0, 1, 2), "the box is"),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(UnclipError, match=message):
        hole(noise(8, 6), mask)


def test_bad_margins(tiny):
    with pytest.raises(UnclipError, match="nothing is to be added"):
        tiny.outpaint(noise(8, 6), **FEW)
    with pytest.raises(UnclipError, match="left is -1"):
        tiny.outpaint(noise(8, 6), left=-1, **FEW)
    with pytest.raises(UnclipError, match="at most 4096×4096 is read"):
        tiny.outpaint(noise(8, 6), left=4090, **FEW)


def test_transparent_parts_count_as_white():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert np.asarray(flat(image)).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_what_is_drawn_goes_with_what_is_known():
    """Data x = (a, a + e) with a standard normal: given the first, rounds draw the second near its true mean."""
    rng = torch.Generator().manual_seed(0)
    cov = torch.tensor([[1.0, 1.0], [1.0, 1.01]], dtype=torch.float64)

    def denoise(x, at):
        gain = at.alpha * cov @ torch.linalg.inv(at.alpha**2 * cov + at.sigma**2 * torch.eye(2, dtype=torch.float64))
        return Estimate(x @ gain.T)

    known = torch.tensor([[True, False]])
    x0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(400, 2)
    levels = Levels.from_betas(cosine(1000)).spaced(spread(1000, 20))

    def randn(x):
        return torch.randn(x.shape, generator=rng, dtype=torch.float64)

    def drawn(rounds):
        *_, (x, _) = harmonised(Known(denoise, x0, known), randn(x0), levels, rounds, randn)
        assert torch.equal(x[:, 0], x0[:, 0])
        return (x[:, 1] - 2).square().mean().sqrt().item()

    assert drawn(10) < 0.3 < drawn(1)
