"""Tiny Karlos of random weights, in the form of Kakao Brain's own files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unclip.diffusion.process import Process
from unclip.models.clip import CLIPConfig
from unclip.nn.transformer import TransformerConfig
from unclip.published.karlo import NATIVE, Karlo, from_folder
from unclip.weights import karlo, openai_clip
from unclip.weights.match import prepare

EMBED = 64


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


