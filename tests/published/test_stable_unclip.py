"""Stable unCLIP from a folder such as diffusers saves: what a user asks of it, and what is refused. The slow tests
compare its pictures with those of diffusers."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unclip
from unclip.errors import UnclipError
from unclip.models.autoencoder_kl import AutoencoderKLConfig
from unclip.models.clip import ImageTowerConfig, TextTowerConfig
from unclip.models.noised_decoder import NoisedDecoderConfig, Noiser, NoiserConfig
from unclip.models.prior import PriorConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP
from unclip.published.stable_unclip import StableUnCLIP
from unclip.weights import diffusers, hf_clip, stable_unclip, vqgan
from unclip.weights.hf_tokenizer import clip_tokenizer
from unclip.weights.match import prepare

LETTERS = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase]
VOCABULARY = {name: i for i, name in enumerate(["!", *LETTERS, "fo", "fox</w>", "<|startoftext|>", "<|endoftext|>"])}
END, SIZE = len(VOCABULARY) - 1, 32
TOWER = TransformerConfig(SIZE, 1, 1, activation="quick_gelu")
TEXT = {"text": TOWER, "vocab": len(VOCABULARY), "context": 12, "end": END}
UNET = UNetConfig(4, 4, (32, 64), 1, (0,), 16, context=SIZE, scale_shift=False, convolve=True, transformer=True)
PARTS = {
    "unet": (stable_unclip.STABLE_UNCLIP, NoisedDecoderConfig(8, embed=SIZE, unet=UNET)),
    "image_normalizer": (stable_unclip.NOISER, NoiserConfig(SIZE)),
    "text_encoder": (hf_clip.HF_TEXT_SHORT, TextTowerConfig(0, **TEXT)),
    "prior_text_encoder": (hf_clip.HF_TEXT, TextTowerConfig(SIZE, **TEXT)),
    "image_encoder": (hf_clip.HF_IMAGE, ImageTowerConfig(SIZE, 32, 16, TOWER, pre_norm=True)),
    "vae": (vqgan.AUTOENCODER_KL, AutoencoderKLConfig(32, (1, 2), 1)),
    "prior": (diffusers.PRIOR, PriorConfig(SIZE, SIZE, 12, TransformerConfig(64, 1, 1), affine=True, null=False)),
}  # fmt: skip
SAID = {"unet": {"attention_head_dim": [2, 4], "sample_size": 8}, "text_encoder": {"eos_token_id": 2}}
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True,
          "prediction_type": "v_prediction", "steps_offset": 1}  # fmt: skip
QUICK = {"steps": 3, "prior_steps": 2, "progress": False}


def say(path: Path, **what: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(what))


@pytest.fixture
def folder(tmp_path) -> Path:
    """With prior and picture tower both."""
    g = torch.Generator().manual_seed(0)
    for name, (family, config) in PARTS.items():
        said = {"num_attention_heads": 1, "hidden_act": "quick_gelu"} | SAID.get(name, {})
        say(tmp_path / name / "config.json", **said if name != "unet" else SAID[name])
        wanted = prepare(family, config).wanted
        tensors = {key: torch.randn(spec.shape, generator=g) * 0.1 for key, spec in wanted.items()}
        tensors |= {key: v + 1 for key, v in tensors.items() if "norm" in key and key.endswith("weight")}
        tensors |= {key: v.abs() + 0.5 for key, v in tensors.items() if key in ("std", "clip_std")}
        save_file(tensors, tmp_path / name / "model.safetensors")
    for name in ("tokenizer", "prior_tokenizer"):
        say(tmp_path / name / "vocab.json", **VOCABULARY)
        (tmp_path / name / "merges.txt").write_text("#version: 0.2\nf o\nfo x</w>\n")
        say(tmp_path / name / "tokenizer_config.json", pad_token={"content": "!"}, unk_token="<|endoftext|>")
    say(tmp_path / "scheduler" / "scheduler_config.json", _class_name="PNDMScheduler", **LATENT)
    cosine = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
    say(tmp_path / "image_noising_scheduler" / "scheduler_config.json", **cosine)
    say(tmp_path / "prior_scheduler" / "scheduler_config.json", **cosine, prediction_type="sample", clip_sample_range=5)
    say(tmp_path / "model_index.json", _class_name="StableUnCLIPPipeline")
    return tmp_path


@pytest.fixture
def stable(folder) -> StableUnCLIP:
    system = UnCLIP.from_pretrained(folder)
    assert isinstance(system, StableUnCLIP)
    return system


def test_a_header_whose_length_begins_as_a_pickle_does(folder):
    path = folder / "image_normalizer" / "model.safetensors"
    assert path.read_bytes()[:9] == b"\x80\0\0\0\0\0\0\0{"
    assert torch.equal(unclip.load(path).mean, load_file(path)["mean"][0])


def test_captions_and_pictures(stable):
    drawn = stable.generate("a red fox", n=2, **QUICK)
    assert [image.size for image in drawn.images] == [(16, 16)] * 2
    assert drawn.images[0].tobytes() != drawn.images[1].tobytes()
    assert {drawn.params[name] for name in ("guidance", "prior_guidance", "sampler")} == {10.0, 4.0, "plms"}
    assert drawn.images[1].tobytes() == stable.generate("a red fox", seed=1, **QUICK).images[0].tobytes()
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    varied = [stable.variations(picture, n=1, noise_level=level, **QUICK).images[0] for level in (0, 999)]
    assert varied[0].tobytes() != varied[1].tobytes()
    for again in (stable.variations(picture, n=1, eta=0.5, **QUICK), stable.img2img(picture, "a fox", **QUICK),
                  stable.generate("a fox", sampler="ddpm", guidance_rescale=0.5, **QUICK)):  # fmt: skip
        assert again.images[0].size == (16, 16)


def test_what_is_noised_is_told(stable):
    noiser = Noiser(NoiserConfig(SIZE))
    noiser.mean, noiser.deviation = torch.full((SIZE,), 2.0), torch.full((SIZE,), 3.0)
    z_i = torch.randn(4000, SIZE, generator=torch.Generator().manual_seed(0)) * 3 + 2
    noise = torch.randn(4000, SIZE, generator=torch.Generator().manual_seed(1))
    out = noiser(z_i, 500, noise)[:, :SIZE]
    assert out.mean() == pytest.approx(2, abs=0.03) and out.std() == pytest.approx(3, abs=0.03)  # what is usual stays
    alpha = noiser.config.diffusion.levels().alpha[501].item()
    assert torch.corrcoef(torch.stack([out.flatten(), z_i.flatten()]))[0, 1] == pytest.approx(alpha, abs=0.01)
    assert not torch.equal(noiser(z_i, 0, noise)[:, SIZE:], noiser(z_i, 1, noise)[:, SIZE:])


def test_a_tokenizer_of_few_words(folder):
    tokenizer = clip_tokenizer(folder / "tokenizer")
    assert (tokenizer.end, tokenizer.pad) == (END, 0)
    assert tokenizer.encode(["fox é", "foxes"], 6)[0].tolist() == [  # é is two bytes: as transformers 5.24 has it
        [END - 1, VOCABULARY["fox</w>"], END, END, END, 0],
        [END - 1, VOCABULARY["fo"], *(VOCABULARY[name] for name in ("x", "e", "s</w>")), END],
    ]
    say(folder / "tokenizer" / "vocab.json", a=1)
    with pytest.raises(UnclipError, match="no tokenizer of CLIP's kind|lacks"):
        clip_tokenizer(folder / "tokenizer")


@pytest.mark.parametrize(
    ("part", "told"),
    [("prior", "no prior"), ("image_encoder", "no picture encoder")],
)  # fmt: skip
def test_what_a_folder_lacks_is_said(folder, part, told):
    (folder / part).rename(folder / "elsewhere")
    system, picture = UnCLIP.from_pretrained(folder), Image.new("RGB", (20, 20))
    with pytest.raises(UnclipError, match=told):
        system.generate("a fox", **QUICK) if part == "prior" else system.variations(picture, **QUICK)


@pytest.mark.parametrize(
    ("part", "config", "told"),
    [("image_normalizer", NoiserConfig(16), "embedding spaces"),
     ("vae", AutoencoderKLConfig(32, (1, 2), 1, latent=8, embed=8), "latents"),
     ("text_encoder", TextTowerConfig(0, **TEXT | {"text": TransformerConfig(64, 1, 1)}), "widths of encoded text")],
)  # fmt: skip
def test_parts_of_different_systems(folder, part, config, told):
    wanted = prepare(PARTS[part][0], config).wanted
    save_file({key: torch.ones(spec.shape) for key, spec in wanted.items()}, folder / part / "model.safetensors")
    with pytest.raises(UnclipError, match=f"different {told}"):
        UnCLIP.from_pretrained(folder)


@pytest.mark.parametrize("part", PARTS)
def test_every_key_is_used_once(folder, part):
    path = folder / part / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"more.weight": torch.ones(2, 2)}, path)
    with pytest.raises(UnclipError, match=r"more\.weight.*left over|and 2 more") as e:
        UnCLIP.from_pretrained(folder)
    assert "\n" not in str(e.value)


def test_noise_that_other_systems_do_not_know(stable, folder):
    with pytest.raises(UnclipError, match="noise_level is 1000.*at most 999"):
        stable.generate("a fox", noise_level=1000, **QUICK)
    with pytest.raises(UnclipError, match="takes? z_i as it is"):
        UnCLIP.from_pretrained("mini").generate("a fox", noise_level=1, progress=False)


def test_a_prior_out_of_a_folder_of_ours(folder, stable, tmp_path):
    """Named for a folder of diffusers' or of ours that lacks one, it draws as if it were there."""
    led = stable.save_pretrained(tmp_path / "led")
    (folder / "prior").rename(folder / "elsewhere")
    blind = UnCLIP.from_pretrained(folder).save_pretrained(tmp_path / "blind")
    true = stable.generate("a fox", **QUICK).images[0].tobytes()
    for place in (folder, blind):
        again = UnCLIP.from_pretrained(place, prior=led)
        assert again.generate("a fox", **QUICK).images[0].tobytes() == true
        assert again.parts.keys() == stable.parts.keys()
    with pytest.raises(UnclipError, match="lacks the part 'prior'; convert it again"):
        UnCLIP.from_pretrained(folder, prior=blind)


def test_half_a_copy(folder, cli, tmp_path):
    (folder / "tokenizer").rename(folder / "elsewhere")
    with pytest.raises(UnclipError, match="lacks tokenizer; put it there, or fetch the whole again"):
        UnCLIP.from_pretrained(folder)
    (folder / "model_index.json").unlink()
    assert "holds networks in folders of their own, but no model_index.json" in cli("convert", folder, "x").error


@pytest.mark.parametrize("lacking", [None, "image_encoder", "prior"])
def test_saved_in_a_folder_of_ours(folder, lacking, kept):
    say(folder / "prior_scheduler" / "scheduler_config.json", _class_name="DDPMScheduler", clip_sample_range=3,
        beta_schedule="squaredcos_cap_v2", prediction_type="sample")  # fmt: skip
    if lacking:
        (folder / lacking).rename(folder / "elsewhere")
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    kept(UnCLIP.from_pretrained(folder), lambda s: s.variations(picture, 1, noise_level=9, steps=3, progress=False)
         if lacking == "prior" else s.generate("a fox", **QUICK))  # fmt: skip
