"""Tiny networks of random weights, in the files of those who published them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unclip.diffusion.process import Process
from unclip.errors import UnclipError
from unclip.models.adm import ADMConfig, ClassifierConfig
from unclip.models.clip import CLIPConfig
from unclip.models.glide import GlideConfig
from unclip.models.noised_clip import NoisedImageConfig, NoisedTextConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP
from unclip.published.karlo import NATIVE, Karlo, from_folder
from unclip.weights import karlo, openai_clip
from unclip.weights.adm import CLASSIFIER, GUIDED_DIFFUSION, LINEAR
from unclip.weights.family import Family
from unclip.weights.glide import GLIDE, inpainting
from unclip.weights.match import prepare
from unclip.weights.noised_clip import GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT

EMBED = 64
TEXT = TransformerConfig(64, 1, 1)
SMALL = UNetConfig(out_channels=6, channels=(64,), depth=1, attention=(0,), head=64)
LARGE = UNetConfig(out_channels=6, channels=(64, 64, 64), depth=1, attention=(2,), head=64, layout=3)
BASE = GlideConfig(8, context=12, text=TEXT, unet=UNetConfig(**vars(SMALL) | {"context": 64}))
UPSAMPLE = GlideConfig(32, context=12, low=8, text=TEXT, unet=UNetConfig(**vars(LARGE) | {"context": 64}))
NETWORKS: dict[str, tuple[Family, Any]] = {
    "base": (GLIDE, BASE), "upsample": (GLIDE, UPSAMPLE), "base_inpaint": (GLIDE, inpainting(BASE)),
    "upsample_inpaint": (GLIDE, inpainting(UPSAMPLE)),
    "clip_image": (GLIDE_CLIP_IMAGE, NoisedImageConfig(16, 8, 4, 1000, TEXT)),
    "clip_text": (GLIDE_CLIP_TEXT, NoisedTextConfig(16, 49408, 77, 49407, TEXT)),
    "diffusion": (GUIDED_DIFFUSION, ADMConfig(8, 10, SMALL, LINEAR)),
    "uncond": (GUIDED_DIFFUSION, ADMConfig(8, 0, SMALL, LINEAR)),
    "upsampler": (GUIDED_DIFFUSION, ADMConfig(32, 10, LARGE, LINEAR)),
    "classifier": (CLASSIFIER, ClassifierConfig(8, 10, UNetConfig(channels=(64,), depth=1, attention=(0,), head=64))),
    "large_classifier": (CLASSIFIER, ClassifierConfig(16, 10, UNetConfig(channels=(64, 64), depth=1, attention=(0, 1),
                                                                         head=64))),
}  # fmt: skip


def configs() -> dict:
    """Every network of Karlo at a size that draws in a second."""
    tower = TransformerConfig(EMBED, 1, 1, activation="quick_gelu")
    unet = replace(karlo.DECODER.unet, channels=(32, 32, 32, 64), depth=1, attention=(3,), context=40)
    large = replace(karlo.UPSAMPLER.unet, channels=(32, 32), depth=1)
    return {
        "prior": (karlo.KARLO_PRIOR, replace(karlo.PRIOR, embed=EMBED, text=EMBED,
                                             transformer=TransformerConfig(64, 1, 1))),
        "decoder": (karlo.KARLO_DECODER, replace(karlo.DECODER, embed=EMBED, pooled=EMBED, text=EMBED, unet=unet)),
        "upsampler": (karlo.KARLO_SR, replace(karlo.UPSAMPLER, unet=large, diffusion=Process())),
        "clip": (openai_clip.OPENAI_CLIP, CLIPConfig(EMBED, 28, 14, tower, tower, 49408, 77, 49407, True)),
    }  # fmt: skip


@pytest.fixture(scope="session")
def native_karlo(tmp_path_factory) -> Path:
    """The folder of Karlo's own files, not to be changed: pickles with weights and a training's state around them."""
    folder, g = tmp_path_factory.mktemp("native") / "karlo", torch.Generator().manual_seed(0)
    folder.mkdir()
    for part, (family, config) in configs().items():
        wanted = prepare(family, config).wanted
        state = {key: torch.randn(spec.shape, generator=g) * 0.1 for key, spec in wanted.items()}
        state |= {key: v + 1 for key, v in state.items() if key.endswith(("norm.weight", "ln_1.weight", "ln_2.weight"))}
        torch.save({"state_dict": state, "epoch": 1}, folder / NATIVE[part])
    torch.save((torch.randn(EMBED, generator=g) * 0.1, torch.rand(EMBED, generator=g) + 0.5), folder / NATIVE["space"])
    return folder


@pytest.fixture(scope="session")
def tiny_karlo(native_karlo) -> Karlo:
    return from_folder(native_karlo)


@pytest.fixture
def few() -> dict:
    return {"size": 64, "steps": 2, "prior_steps": 2, "progress": False}


@pytest.fixture
def kept(tmp_path, cli) -> Callable[..., Any]:
    """Save a system, read it again, and see that nothing is lost: not a weight, a setting, or a pixel."""

    def check(system: Any, draw: Callable[[Any], Any]) -> Any:
        folder = system.save_pretrained(tmp_path / "saved")
        again, little = UnCLIP.from_pretrained(folder), UnCLIP.from_pretrained(folder, memory="100GB")
        assert type(again) is type(system) and len(again.digest) == 10
        assert again.defaults == system.defaults and again.schedulers == system.schedulers
        for name, net in system.parts.items():
            ours, true = again.parts[name].state_dict(), net.state_dict()
            assert again.parts[name].config == net.config, name
            assert ours.keys() == true.keys() and all(torch.equal(ours[key], true[key]) for key in true), name
        drawn = [draw(s).images[0].tobytes() for s in (system, again, little)]
        assert drawn[0] == drawn[1] == drawn[2]
        told = cli("inspect", folder)
        assert told.code == 0 and told.out.splitlines()[0].endswith(f", {again.digest}, files whole")
        assert told.out.splitlines()[1].startswith(f"  a whole {type(system).__name__}: UnCLIP.from_pretrained(")
        lost = next(folder.glob("decoder/*.safetensors"))
        lost.rename(tmp_path / "lost")
        with pytest.raises(UnclipError, match=rf"lacks decoder/{lost.name}, which was written with it; copy all of it"):
            UnCLIP.from_pretrained(folder)
        assert "damaged, " in cli("inspect", folder).out.splitlines()[0]
        return again

    return check


@pytest.fixture
def put(tmp_path) -> Callable[..., Path]:
    """Names of `NETWORKS` → a folder with their files, which are called otherwise."""

    def write(*names: str) -> Path:
        folder = tmp_path / "weights"
        folder.mkdir(exist_ok=True)
        for i, name in enumerate(names):
            g = torch.Generator().manual_seed(i)
            wanted = prepare(*NETWORKS[name]).wanted
            state = {k: 0.05 * torch.randn(s.shape, generator=g) for k, s in wanted.items()}
            state |= {k: w + 1 for k, w in state.items() if w.ndim == 1 and k.endswith(("weight", ".g"))}
            torch.save(state, folder / f"{name[::-1]}.bin")
        return folder

    return write
