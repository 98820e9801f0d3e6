"""GLIDE from files that are known by their content: what it draws, what it keeps, and what it says when parts lack."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import metadata
from unclip.cli.main import main
from unclip.diffusion.process import Process
from unclip.errors import UnclipError
from unclip.pictures import to_pil
from unclip.pipeline import UnCLIP
from unclip.published.glide import GLIDE, fast
from unclip.settings import Request, Settings

GOLDEN = Path(__file__).parent.parent / "golden"
FEW = {"steps": 2, "progress": False}
LARGE = {**FEW, "upsampler_steps": 2}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    to_pil(torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1)[0].save(path)
    return path


def test_it_draws_small_and_large_by_its_own_defaults(put):
    glide = UnCLIP.from_pretrained(put("upsample", "base"))
    assert isinstance(glide, GLIDE)
    assert glide.sizes == [8, 32]
    drawn = glide.generate("a red fox", n=2, seed=5, **LARGE)
    assert [image.size for image in drawn.images] == [(32, 32)] * 2
    assert drawn.params["guidance"] == 3.0
    assert drawn.params["sampler"] == "ddpm"
    assert glide.generate("a red fox", seed=6, **LARGE).images[0] == drawn.images[1]
    assert glide.generate("a red fox", size=8, **LARGE).images[0].size == (8, 8)


def rows(betas: torch.Tensor, kept: list[int]) -> list[tuple[int, float, float]]:
    """(t, alpha-bar there, alpha-bar one step on) of a respaced chain, from noise to data."""
    abar = (1 - betas).cumprod(0)
    before = [1.0, *abar[kept[:-1]].tolist()]
    return list(zip(kept, abar[kept].tolist(), before, strict=True))[::-1]


def estimate(y: torch.Tensor, x: torch.Tensor, a: float) -> torch.Tensor:
    return ((x - (1 - a) ** 0.5 * y[:, :3]) / a**0.5).clamp(-1, 1)


@torch.no_grad()
def test_the_way_of_the_published_notebook(put):
    """DDPM's steps with guidance 3 at the small size; 27 of DDIM's, from noise times 0.997, at the large one."""
    glide = UnCLIP.from_pretrained(put("base", "upsample"))
    assert isinstance(glide, GLIDE)
    g = torch.Generator().manual_seed(0)
    noises = [torch.randn(1, 3, 8, 8, generator=g) for _ in range(5)]
    start, f = torch.randn(1, 3, 32, 32, generator=g), torch.linspace(0, 1, 1001, dtype=torch.float64)
    f = ((f + 0.008) / 1.008 * torch.pi / 2).cos() ** 2
    cosine, linear = (1 - f[1:] / f[:-1]).clamp(max=0.999), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)

    tokens, seen = glide.tokenizer.encode(["a fox", ""], 12)
    given, x, chain = glide.decoder.condition(tokens, seen), noises[0], rows(cosine, [0, 250, 500, 749, 999])
    for i, (t, a, b) in enumerate(chain, 1):
        y = glide.decoder(x.repeat(2, 1, 1, 1), torch.tensor([t, t]), given)
        y[:1, :3] = y[1:, :3] + 3 * (y[:1, :3] - y[1:, :3])
        x0, beta = estimate(y[:1], x, a), 1 - a / b
        x = (b**0.5 * beta * x0 + (a / b) ** 0.5 * (1 - b) * x) / (1 - a)
        if i < 5:
            share, small = (y[:1, 3:] + 1) / 2, beta * (1 - b) / (1 - a)
            x = x + beta ** (share / 2) * small ** ((1 - share) / 2) * noises[i]
    low = ((x + 1) * 127.5).round() / 127.5 - 1
    given, large = glide.upsampler.condition(tokens[:1], seen[:1], low), 0.997 * start
    for t, a, b in rows(linear, np.load(GOLDEN / "glide_fast27.npz")["ts"].tolist()):
        x0 = estimate(glide.upsampler(large, torch.tensor([t]), given), large, a)
        large = b**0.5 * x0 + (1 - b) ** 0.5 * (large - a**0.5 * x0) / (1 - a) ** 0.5

    class Replay(list):
        def __call__(self, shape):
            return self.pop(0)

        like = __call__

    request = glide.fit(Request(["a fox"], [0], settings=Settings(**glide.defaults | {"steps": 5})))
    rest = (request.prompts[0], request)
    drawn = glide.stage(glide.decoder, None, *rest, Replay(noises), lambda *_: None)
    torch.testing.assert_close(drawn, x, rtol=0, atol=1e-4)
    drawn = glide.stage(glide.upsampler, x, *rest, Replay([start]), lambda *_: None)
    torch.testing.assert_close(drawn, large, rtol=0, atol=1e-4)


def test_every_part_of_the_prompt_counts(put):
    glide = UnCLIP.from_pretrained(put("base"))
    plain = glide.generate("a fox", **FEW).images[0]
    assert glide.generate("a fox", negative_prompt="a dog", **FEW).images[0] != plain
    assert glide.generate("a fox", guidance=1, **FEW).images[0] != plain
    with pytest.warns(UserWarning, match="too long for these weights; left out: 'the moon'"):
        glide.generate("one two three four five six seven eight nine ten eleven twelve the moon", **FEW)


def test_the_noised_clip_guides(put):
    glide = UnCLIP.from_pretrained(put("base", "clip_image", "clip_text"))
    assert glide.generate("a fox", **FEW).images != glide.generate("a fox", clip_guidance=3, **FEW).images


def test_published_steps_of_the_upsampler():
    process = Process("linear", variance="learned")
    times = fast(process, 27).t.tolist()
    assert len(times) == 28
    assert times[-3:] == [799, 800, 997]
    assert len(fast(process, 20)) == 21


def test_known_pixels_stay(put, photo):
    glide, image = UnCLIP.from_pretrained(put("base_inpaint", "upsample_inpaint")), Image.open(photo).copy()
    box = (3, 9, 20, 30)
    drawn = glide.inpaint(photo, box, "a fox", n=2, **LARGE)
    assert drawn.params["guidance"] == 5.0
    outside = Image.new("L", image.size, 255)
    outside.paste(0, box)
    black = Image.new("RGB", image.size)
    for picture in drawn.images:
        assert picture.size == image.size
        assert picture != image
        assert Image.composite(picture, black, outside) == Image.composite(image, black, outside)
    assert glide.outpaint(photo, left=4, **LARGE).images[0].crop((4, 0, 28, 40)) == image


@pytest.mark.parametrize(
    ("names", "ask", "told"),
    [
        (("base",), {"size": 32}, "size is 32; these weights draw 8; there is no upsampler with them"),
        (("base",), {"clip_guidance": 3}, r"hold no noised CLIP \(put clip_image_enc.pt and clip_text_enc.pt beside"),
        (("base",), {"upsampler_steps": 2}, "upsampler_steps does nothing .* they have no upsampler; leave it out"),
        (("base",), {"best_of": 4}, "best_of does nothing with the weights '.*': they have no prior; leave it out"),
        (("base",), {"prior": "none"}, "prior does nothing with the weights '.*': they have no z_i; leave it out"),
        (("upsample",), {}, "GLIDE's upsampler has nothing to enlarge: put base.pt beside it"),
        (("base", "clip_image"), {}, "one half of the noised CLIP is missing: put clip_text_enc.pt beside the other"),
        (("base",), {"fast": 2}, "hold no few-step decoder"),
        (("base", "upsample"), {"tile": 16}, "tile does nothing .* looks at the whole picture; leave it out"),
    ],
)
def test_what_lacks_is_told_in_a_line(put, names, ask, told):
    with pytest.raises(UnclipError, match=told) as e:
        UnCLIP.from_pretrained(put(*names)).generate("a fox", **FEW | ask)
    assert "\n" not in str(e.value)


def test_little_memory_changes_nothing(put, photo, capsys):
    folder = put("base", "upsample", "base_inpaint", "clip_image", "clip_text")
    glide, frugal = UnCLIP.from_pretrained(folder), UnCLIP.from_pretrained(folder, memory="8GB")
    assert "upsampler_256: load" in capsys.readouterr().err
    assert next(frugal.decoder.parameters()).is_meta
    ask = {"n": 2, "clip_guidance": 3, **LARGE}
    assert frugal.generate("a fox", **ask).images == glide.generate("a fox", **ask).images
    assert frugal.inpaint(photo, (0, 0, 9, 9), **LARGE).images == glide.inpaint(photo, (0, 0, 9, 9), **LARGE).images


def test_two_of_a_kind_and_what_needs_a_z_i(put, photo):
    folder = put("base")
    glide = UnCLIP.from_pretrained(folder)
    for ask in (lambda: glide.variations(photo), lambda: glide.text_diff(photo, "a dog")):
        with pytest.raises(UnclipError, match="have no CLIP embedding z_i"):
            ask()
    with pytest.raises(UnclipError, match=r"no network to inpaint; put base_inpaint\.pt beside them"):
        glide.inpaint(photo, (0, 0, 5, 5))
    (file,) = folder.iterdir()
    assert UnCLIP.from_pretrained(file).digest == glide.digest != ""
    (folder / "again.pt").write_bytes(file.read_bytes())
    with pytest.raises(UnclipError, match="are each GLIDE's base; keep one of them there"):
        UnCLIP.from_pretrained(folder)


def test_on_the_command_line(put, tmp_path, photo, capsys):
    folder = put("base", "upsample", "base_inpaint", "upsample_inpaint")
    few = ["--steps", "2", "--upsampler-steps", "2"]
    rest = ["--weights", str(folder), "--quiet", "--device", "cpu"]
    fox, hole = tmp_path / "fox.png", tmp_path / "hole.png"
    assert main(["generate", "a fox", "--seed", "7", "-o", str(fox), *few, *rest]) == 0
    assert main(["inpaint", str(photo), "--box", "3,9,20,30", "--prompt", "a fox", "-o", str(hole), *few, *rest]) == 0
    record = metadata.read(fox).record
    assert record is not None
    assert record["settings"]["guidance"] == 3.0
    assert record["model"]["digest"]
    assert main(["inspect", str(fox), "--replay", *rest]) == 0
    assert "sha256 equal" in capsys.readouterr().out
    assert main(["inspect", str(hole), "--replay", "--source", str(photo), "--json", *rest]) == 0
    assert json.loads(capsys.readouterr().out)["same"]
    assert main(["inspect", str(folder)]) == 0
    assert capsys.readouterr().out.count("GLIDE (of unpublished size), stage decoder") == 4
    assert main(["variations", str(photo), *rest]) == 2
    assert main(["upscale", str(photo), *rest]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("names", [("base",), ("base", "upsample", "base_inpaint", "upsample_inpaint", "clip_image",
                                                "clip_text"), ("base_inpaint",)])  # fmt: skip
def test_saved_in_a_folder_of_ours(put, kept, names):
    system = UnCLIP.from_pretrained(put(*names))
    more = LARGE | {"clip_guidance": 1.0} if "clip_text" in names else FEW
    again = kept(system, lambda s: s.generate("a fox", **more))
    assert [*again.inpainters] == [*system.inpainters]
