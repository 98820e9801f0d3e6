"""Karlo whole: its own files, our folders, pictures, and everything that is done to pictures."""

import copy
import json
import shutil

import pytest
import torch
from PIL import Image

from unclip.errors import UnclipError
from unclip.pictures import to_tensor
from unclip.pipeline import UnCLIP
from unclip.published.karlo import NATIVE, Karlo, towers


def pixels(drawn) -> list[bytes]:
    return [image.tobytes() for image in drawn.images]


@pytest.fixture
def picture(tmp_path):
    image = Image.new("RGB", (64, 64), "white")
    image.paste("red", (8, 20, 40, 60))
    image.save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_its_own_files_draw(native_karlo, tiny_karlo, few):
    ours = UnCLIP.from_pretrained(native_karlo)
    assert isinstance(ours, Karlo)
    assert len(ours.digest) == 10
    drawn = ours.generate("a red fox", n=2, **few)
    large = ours.generate("a red fox", **few | {"size": None, "upsampler_steps": 2})
    assert large.images[0].size == (256, 256)
    assert large.params["guidance"] == 8.0 and large.params["sampler"] == "ddpm"
    assert pixels(drawn) == pixels(tiny_karlo.generate("a red fox", n=2, **few))
    assert drawn.images[0].tobytes() != drawn.images[1].tobytes()
    assert ours.prior.space.deviation.min() > 0.4  # of the file beside them


def test_saved_and_read_again_it_draws_the_same(tiny_karlo, few, tmp_path):
    ours = UnCLIP.from_pretrained(tiny_karlo.save_pretrained(tmp_path / "k"))
    assert isinstance(ours, Karlo)
    assert pixels(ours.generate("a fox", **few)) == pixels(tiny_karlo.generate("a fox", **few))
    assert {p.name for p in (tmp_path / "k").iterdir()} == {
        "clip", "prior", "decoder", "upsampler_256", "tokenizer", "model_index.json"
    }  # fmt: skip
    weights = tmp_path / "k" / "prior" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UnclipError, match="is damaged: it is not what was written"):
        UnCLIP.from_pretrained(tmp_path / "k")


def test_without_a_picture_tower(tiny_karlo, few, tmp_path, picture):
    """As diffusers' folder of text to image is."""
    t = tiny_karlo
    blind = Karlo(t.tokenizer, towers(copy.deepcopy(t.clip.text), None), t.prior, t.decoder, t.upsampler)
    again = UnCLIP.from_pretrained(blind.save_pretrained(tmp_path / "k"))
    assert pixels(again.generate("a fox", **few)) == pixels(tiny_karlo.generate("a fox", **few))
    with pytest.raises(UnclipError, match="lacks CLIP's picture tower, and sees no pictures: put the folder image_enc"):
        again.variations(picture, **few)


def test_without_a_prior(tiny_karlo, few, picture):
    t = tiny_karlo
    ours = Karlo(t.tokenizer, t.clip, None, t.decoder, t.upsampler, "variations")
    varied = {name: value for name, value in few.items() if name != "prior_steps"}
    assert pixels(ours.variations(picture, n=1, **varied)) == pixels(t.variations(picture, n=1, **few))
    with pytest.raises(UnclipError, match="prior_steps does nothing with the weights 'variations': they have no prior"):
        ours.variations(picture, n=1, **few)
    with pytest.raises(UnclipError, match="'variations' holds no prior, so that it can vary pictures but reads no"):
        ours.generate("a fox", **varied)


def test_everything_that_is_done_to_pictures(tiny_karlo, few, picture):
    at = tiny_karlo.invert(picture, **few)
    assert at.x_T.shape == (1, 3, 64, 64)
    diff = tiny_karlo.text_diff(picture, "a fox", base="a dog", frames=3, theta=0.5, **few)
    assert len(set(pixels(diff))) == 3
    length = tiny_karlo.embed(to_tensor(Image.open(picture))).norm()
    torch.testing.assert_close(diff.embeddings.norm(dim=1), length.expand(3), rtol=1e-3, atol=0)
    assert torch.equal(diff.embeddings[0], at.z_i[0])
    clip = tiny_karlo.text_diff(picture, "a fox", by="clip", frames=2, **few)
    assert pixels(clip)[0] == pixels(diff)[0] != pixels(clip)[1]
    between = tiny_karlo.interpolate([picture], ["a fox"], frames=3, **few)
    assert len(set(pixels(between))) == 3
    probe = tiny_karlo.pca_probe(picture, torch.randn(20, 64), (2, 10), **few)
    torch.testing.assert_close(probe.embeddings.norm(dim=1), length.expand(2), rtol=1e-3, atol=0)
    assert len(set(pixels(tiny_karlo.variations(picture, n=2, **few)))) == 2
    assert tiny_karlo.img2img(picture, "a fox", **few).images[0].size == (64, 64)
    filled = tiny_karlo.inpaint(picture, (0, 0, 32, 32), "a fox", rounds=1, **few).images[0]
    assert filled.crop((32, 32, 64, 64)).tobytes() == Image.open(picture).crop((32, 32, 64, 64)).tobytes()


def test_settings_of_guidance_count(tiny_karlo, few):
    plain = pixels(tiny_karlo.generate("a fox", **few))
    for more in ({"guidance_z": 2.0}, {"guidance_rescale": 0.5}, {"guidance_start": 0.6}, {"threshold": 0.5}):
        assert pixels(tiny_karlo.generate("a fox", **few, **more)) != plain, more


def test_the_command_line(cli, native_karlo, tiny_karlo, few, tmp_path):
    options = ["--size", 64, "--steps", 2, "--prior-steps", 2, "--quiet", "--weights", native_karlo]
    done = cli("generate", "a red fox", *options, "-o", tmp_path / "x.png")
    assert (done.code, done.err) == (0, "")
    assert Image.open(tmp_path / "x.png").tobytes() == pixels(tiny_karlo.generate("a red fox", **few))[0]
    done = cli("inspect", tmp_path / "x.png", "--replay", "--weights", native_karlo, "--quiet")
    assert done.out.startswith("the same picture; sha256 equal")


def test_parts_that_do_not_fit(native_karlo, tmp_path):
    folder = tmp_path / "k"
    shutil.copytree(native_karlo, folder)
    (folder / NATIVE["space"]).unlink()
    with pytest.raises(UnclipError, match=r"cannot read '.*ViT-L-14_stats.th'"):
        UnCLIP.from_pretrained(folder)
    torch.save((torch.zeros(3), torch.ones(3)), folder / NATIVE["space"])
    with pytest.raises(UnclipError, match="is no mean and deviation of z_i, 64 values each; fetch it again"):
        UnCLIP.from_pretrained(folder)


def test_inspect_says_what_goes_together(cli, native_karlo, tiny_karlo, tmp_path):
    done = cli("inspect", native_karlo)
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[1] == f"  a whole Karlo: UnCLIP.from_pretrained({str(native_karlo)!r}), unclip generate --weights"
    together = ", ".join([NATIVE["clip"], NATIVE["decoder"], NATIVE["prior"]])
    assert lines[2] == f"  z_i of 64 numbers, so these may go together: {together}"
    assert "  Karlo upsampler (of unpublished size), stage upsampler" in done.out
    tiny_karlo.save_diffusers(tmp_path / "d")
    facts = json.loads(cli("inspect", tmp_path / "d", "--json").out)
    assert facts["system"] == "Karlo"
    assert [*facts["parts"]] == [
        "decoder + text_proj", "image_encoder", "prior", "super_res_first + super_res_last", "text_encoder"
    ]  # fmt: skip
    assert all(part["family"] for part in facts["parts"].values())
    shutil.rmtree(tmp_path / "d" / "decoder")
    (tmp_path / "d" / "model_index.json").unlink()
    (tmp_path / "d" / "notes.bin").write_bytes(b"x" * 99)
    out = cli("inspect", tmp_path / "d").out
    assert "no system that is known here; unclip.load and unclip convert read each network" in out
    assert "is damaged, or no file of weights" in out


def test_diffusers_folder_and_back(tiny_karlo, tmp_path):
    """Its levels are worked out in single precision, and it keeps what its schedulers say: five deviations or ten."""
    back = UnCLIP.from_pretrained(tiny_karlo.save_diffusers(tmp_path / "d"))
    assert isinstance(back, Karlo)
    for name in ("prior", "decoder", "upsampler"):
        ours, true = getattr(back, name), getattr(tiny_karlo, name)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), true.parameters(), strict=True))
    assert back.clip.config == tiny_karlo.clip.config
    assert back.prior.space.deviations == tiny_karlo.prior.space.deviations == 10
