"""Full-size members of the families beside those of the schemas: each built by its own package, without memory."""

from typing import Any

import pytest
import torch
from torch import nn

from unclip.weights.families import FAMILIES
from unclip.weights.family import Schema, Spec
from unclip.weights.match import recognise, used

pytestmark = pytest.mark.slow


def schema(net: nn.Module, before: str = "") -> Schema:
    return Schema({before + key: Spec(tuple(v.shape), str(v.dtype).removeprefix("torch."))
                   for key, v in net.state_dict().items()})  # fmt: skip


def titled(found: Schema) -> str:
    m = recognise(found, FAMILIES, "x")
    assert used(found, m) == len(found)
    return m.title


@pytest.fixture
def meta():
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("RN50", "OpenAI CLIP RN50"), ("ViT-B-16-plus-240", "open_clip ViT-B/16+@240px"),
        ("ViT-H-14-378-quickgelu", "open_clip ViT-H/14@378px"), ("ViT-H-16", "open_clip ViT-H/16"),
        ("ViT-H-14", "open_clip ViT-H/14"), ("ViT-g-14", "open_clip ViT-g/14"),
        ("ViT-bigG-14", "open_clip ViT-bigG/14"),
    ],
)  # fmt: skip
def test_open_clip(torchvision, meta, name, title):
    open_clip = pytest.importorskip("open_clip")
    config = {k: v for k, v in open_clip.get_model_config(name).items() if k != "custom_text"}
    found = schema(open_clip.model.CLIP(**config))
    assert titled(found) == title
    assert titled(Schema({key: Spec(spec.shape, "float16") if spec.dtype == "float32" else spec
                          for key, spec in found.items()})) == title  # fmt: skip


UNET = {"num_heads": 4, "num_head_channels": -1, "num_heads_upsample": -1, "use_scale_shift_norm": True,
        "resblock_updown": False, "use_fp16": False, "attention_resolutions": "16,8", "class_cond": False,
        "learn_sigma": True, "use_checkpoint": False, "dropout": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("title", "config"),
    [
        ("improved-diffusion LSUN", {"image_size": 256, "num_channels": 128, "num_res_blocks": 2, "num_heads": 1,
                                     "use_scale_shift_norm": False, "attention_resolutions": "16"}),
        ("improved-diffusion 64→256", {"large_size": 256, "small_size": 64, "num_channels": 192, "num_res_blocks": 2,
                                       "class_cond": True}),
        ("guided-diffusion 256x256 unconditional, or LSUN", {
            "image_size": 256, "num_channels": 256, "num_res_blocks": 2, "num_head_channels": 64,
            "attention_resolutions": "32,16,8", "resblock_updown": True}),
    ],
)  # fmt: skip
def test_guided_and_improved_diffusion(meta, title, config):
    su = pytest.importorskip("guided_diffusion.script_util")
    build = su.sr_create_model if "small_size" in config else su.create_model
    assert titled(schema(build(**UNET | config))) == title


def decoder(d: Any, channels: int, added: str) -> nn.Module:
    return d.UNet2DConditionModel(
        sample_size=64, in_channels=channels, out_channels=8, block_out_channels=(384, 768, 1152, 1536),
        down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3), layers_per_block=3,
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"), attention_head_dim=64,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=768, encoder_hid_dim=1280,
        encoder_hid_dim_type="image_proj", addition_embed_type=added, resnet_time_scale_shift="scale_shift",
    )  # fmt: skip


def test_kandinsky_2_2(meta):
    d = pytest.importorskip("diffusers")
    named = {"2.2": (4, "image"), "2.2 inpainting": (9, "image"), "2.2 led by depth": (8, "image_hint")}
    for name, asked in named.items():
        assert titled(schema(decoder(d, *asked))) == f"Kandinsky decoder of diffusers {name}"
    prior = d.PriorTransformer(num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=1280)
    assert titled(schema(prior)) == "unCLIP prior of diffusers of Kandinsky 2.2"


def test_the_halves_of_karlos_upsampler(meta):
    d = pytest.importorskip("diffusers")
    half = d.UNet2DModel(
        sample_size=256, in_channels=6, out_channels=3, layers_per_block=3, block_out_channels=(320, 640, 960, 1280),
        down_block_types=["ResnetDownsampleBlock2D"] * 4, up_block_types=["ResnetUpsampleBlock2D"] * 4,
        add_attention=False,
    )  # fmt: skip
    assert titled(schema(half)) == "Karlo upsampler of diffusers, one half v1 alpha"
    both = schema(half, "super_res_first.") | schema(half, "super_res_last.")
    assert titled(Schema(both)) == "Karlo upsampler of diffusers v1 alpha"
