"""The second upsampler and the user's own pictures: sizes, tiles, memory, and how far the weights can enlarge."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unclip.cascade import route, upscale
from unclip.errors import UnclipError
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP

FEW = {"steps": 2, "prior_steps": 2, "upsampler_steps": 2, "upsampler_1024_steps": 2, "progress": False}
FEW_UP = {"upsampler_steps": 2, "upsampler_1024_steps": 2, "progress": False}


@pytest.fixture(scope="module")
def tall(tiny):
    """The tiny pipeline with a second upsampler, 64 → 256."""
    torch.manual_seed(2)
    unet = UNetConfig(6, channels=(8,), depth=1, attention=(), patch=4, local=True)
    second = Upsampler(UpsamplerConfig(64, 256, unet=unet)).eval()
    for parameter in second.requires_grad_(False).parameters():
        parameter += 0.05 * torch.randn(parameter.shape)
    return UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, tiny.upsampler, "tall", upsampler_1024=second)


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (20, 50, 3), dtype=np.uint8))


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def test_sizes_and_what_is_drawn_by_default(tall, tiny):
    assert tall.sizes == [16, 64, 256]
    drawn = {size: tall.generate("a red fox", size=size, **FEW).images[0] for size in (None, 16, 64, 256)}
    assert [image.width for image in drawn.values()] == [64, 16, 64, 256]
    alone = tiny.generate("a red fox", **{k: v for k, v in FEW.items() if k != "upsampler_1024_steps"}).images[0]
    assert difference(drawn[64], alone) == 0  # the second takes nothing away
    with pytest.raises(UnclipError, match="size is 1024; these weights draw 16 or 64 or 256"):
        tall.generate("a red fox", size=1024)


def test_the_callback_hears_of_the_second_upsampler(tall):
    told = []
    tall.generate("a red fox", size=256, callback=lambda p: told.append((p.stage, p.step, p.steps)), **FEW)
    assert told[-2:] == [("upsampler_1024", 1, 2), ("upsampler_1024", 2, 2)]
    assert len(told) == 8


def test_tiles_change_nothing(tall):
    whole, tiled = (tall.generate("a red fox", size=256, tile=tile, **FEW).images[0] for tile in (None, 128))
    assert difference(whole, tiled) <= 1
    with pytest.raises(UnclipError, match="tile is 32; for these weights it must be a multiple of 4"):
        tall.generate("a red fox", size=256, tile=32, **FEW)
    with pytest.raises(UnclipError, match="tile is 8; it must be from 16"):
        tall.generate("a red fox", tile=8)


def test_saved_and_loaded(tall, tmp_path):
    again = UnCLIP.from_pretrained(tall.save_pretrained(tmp_path, torch.float32), device="cpu")
    a, b = (system.generate("a red fox", size=256, **FEW).images[0] for system in (tall, again))
    assert difference(a, b) == 0


def test_parts_that_do_not_fit(tall, tiny):
    wrong = Upsampler(replace(tall.upsampler_1024.config, low=128))
    with pytest.raises(UnclipError, match="different pictures between the upsamplers: .*64.*128"):
        UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, tiny.upsampler, upsampler_1024=wrong)


# ---- pictures of the user's own ------------------------------------------------------------------------------


def test_which_stages_lead_from_where_to_where(tall):
    nets = tall.upsamplers

    def sides(*args):
        return [(name, side) for name, net, side in route(nets, *args) if net]

    assert sides(16, 64) == [("upsampler", 64)]
    assert sides(16, 256) == [("upsampler", 64), ("upsampler_1024", 256)]
    assert sides(50, 256) == [("upsampler", 64), ("upsampler_1024", 256)]
    assert sides(50, 60) == [("upsampler", 60)]
    assert sides(64, 100) == sides(90, 100) == [("upsampler_1024", 100)]
    assert sides(256, 1000) == [("upsampler_1024", 1000)]
    assert route(nets, 16, 256, [64]) == [("upsampler", None, 64), ("upsampler_1024", tall.upsampler_1024, 256)]
    for side, to, most in ((10, 256, 160), (64, 300, 256), (300, 1201, 1200)):
        with pytest.raises(UnclipError, match=f"these weights enlarge {side} px to {most} at most, not to {to}"):
            route(nets, side, to)
    with pytest.raises(UnclipError, match="the picture is 256 px already"):
        route(nets, 256, 256)


def test_a_picture_keeps_its_shape_and_its_seed(tall, photo):
    large = upscale(tall, photo, 199, seed=3, **FEW_UP)
    assert large.size == (199, 80)
    assert difference(large, upscale(tall, photo, 199, seed=3, **FEW_UP)) == 0
    assert difference(large, upscale(tall, photo, 199, seed=4, **FEW_UP)) > 0
    assert upscale(tall, photo, **FEW_UP).size == (256, 102)
    assert photo.size == (50, 20)


def test_an_untrained_upsampler_is_bicubic(tiny, photo):
    """The network's output is added to the interpolation; with the network silent, that is what remains."""
    net = Upsampler(UpsamplerConfig(64, 256, unet=UNetConfig(6, channels=(8,), depth=1, attention=(), patch=4)))
    system = UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, None, upsampler_1024=net)
    made = upscale(system, photo, 200, **FEW_UP)
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    large = F.interpolate(pixels, (80, 200), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    assert difference(made, Image.fromarray((255 * large.numpy()).round().astype(np.uint8))) <= 1
    assert system.sizes == [16]


def test_stages_can_be_skipped_and_done_anew(tall, photo):
    def sides(**options):
        told = []
        upscale(tall, photo, 256, callback=lambda p: told.append(p.stage), **options, **FEW_UP)
        return told[::2]

    assert sides() == ["upsampler", "upsampler_1024"]
    assert sides(skip=[64]) == ["upsampler_1024"]
    assert sides(start=64) == ["upsampler", "upsampler_1024"]
    drawn = tall.generate("a red fox", size=64, **FEW).images[0]
    again = upscale(tall, drawn, 64, start=16, seed=5, **FEW_UP)
    assert again.size == (64, 64) and difference(again, drawn) > 0


def test_tiles_do_not_change_a_wide_picture(tall):
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (70, 100, 3), dtype=np.uint8))
    whole, tiled = (upscale(tall, photo, 400, tile=tile, **FEW_UP) for tile in (None, 132))
    assert whole.size == (400, 280)
    assert difference(whole, tiled) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": 0}, "to is 0; it must be a whole number from 1 to 4096"),
        ({"to": 5000}, "to is 5000"),
        ({"to": "64"}, "to is '64'"),
        ({"to": 64, "start": -1}, "start is -1"),
        ({"to": 64, "seed": -1}, "seed is -1"),
        ({"to": 64, "skip": [32]}, "no upsampler to 32 to skip; these weights hold 16 → 64 and 64 → 256"),
        ({"to": 64, "tile": 4}, "tile is 4"),
        ({"to": 64, "sharpness": 4}, "unknown setting 'sharpness'"),
    ],
)
def test_what_cannot_be_asked(tall, photo, options, message):
    with pytest.raises(UnclipError, match=message):
        upscale(tall, photo, progress=False, **options)


def test_without_upsamplers(tiny, photo):
    system = UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, None, "small")
    with pytest.raises(UnclipError, match="'small' hold no upsampler"):
        upscale(system, photo, 64)


MEMORY = r"""
import re, sys, torch
from unclip.diffusion import Draw, Levels, cosine
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.unet import UNetConfig
def mib(name):  # getrusage's peak would begin with the parent's
    return int(re.search(name + r":\s+(\d+)", open("/proc/self/status").read())[1]) // 1024
torch.set_num_threads(1)
net = Upsampler(UpsamplerConfig(64, 256, unet=UNetConfig(6, channels=(32,), depth=1, attention=(), local=True)))
at = net.config.diffusion.levels()[500]
side = int(sys.argv[1])
with torch.inference_mode():
    given = net.condition(torch.zeros(1, 3, 128, 128))
    x = torch.randn(given.shape)
    open("/proc/self/clear_refs", "w").write("5")  # the peak of loading the libraries is forgotten
    before = mib("VmRSS")
    net.denoiser(side or None)(x, at, given=given)
print(mib("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="read from /proc")
def test_memory_is_bounded_by_the_tile():
    """Peak MiB that one call adds, in processes of their own: a tile of a sixteenth of the area."""
    whole, tiled = (int(subprocess.run([sys.executable, "-c", MEMORY, side], check=True, capture_output=True).stdout)
                    for side in ("0", "128"))  # fmt: skip
    assert whole > 200
    assert tiled < 0.3 * whole
