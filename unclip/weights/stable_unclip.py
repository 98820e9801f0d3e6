"""Stable unCLIP's own pieces as diffusers saves them: the U-Net that is given a noised z_i, and what noises it."""

from typing import Any

from unclip.errors import UnclipError
from unclip.models.noised_decoder import NoisedDecoder, NoisedDecoderConfig, Noiser, NoiserConfig
from unclip.weights import diffusers_unet
from unclip.weights.adm_unet import both
from unclip.weights.family import Family, From, Names, Schema

# What no shape shows, as our U-Net has it.
SETTLED = {"act_fn": "silu", "center_input_sample": False, "class_embed_type": "projection",
           "class_embeddings_concat": False, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0,
           "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32, "num_attention_heads": None,
           "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
           "time_embedding_act_fn": None, "time_embedding_type": "positional", "timestep_post_act": None}  # fmt: skip


def decoder_config(found: Schema) -> NoisedDecoderConfig:
    said: dict[str, Any] = found.about.get("config") or {}
    for name, value in SETTLED.items():
        if said.get(name, value) != value:
            raise UnclipError(f"its config.json asks for {name} = {said[name]!r}; only {value!r} is known here")
    unet = diffusers_unet.config(found, said=said)
    size = said.get("sample_size", 96)
    if not isinstance(size, int) or size < 1 or size % unet.grain:
        raise UnclipError(f"its config.json asks for latents of {size!r}; a multiple of {unet.grain} is needed")
    return NoisedDecoderConfig(size, unet.in_channels, found.size("class_embedding.linear_1.weight", 1) // 2, unet)


def decoder_names(c: NoisedDecoderConfig) -> Names:
    names = diffusers_unet.unet(c.unet) | both("z_emb.0", "class_embedding.linear_1")
    return names | both("z_emb.2", "class_embedding.linear_2")


def row(key: str) -> From:
    """Theirs is one row of a matrix."""
    return From((key,), lambda w: w[0], lambda w: [w[None]])


def noiser_config(found: Schema) -> NoiserConfig:
    return NoiserConfig(found.size("mean", 1))


def noiser_names(_: NoiserConfig) -> Names:
    return {"mean": row("mean"), "deviation": row("std")}


LICENCE = "Open RAIL++-M"
BIG, SMALL = NoisedDecoderConfig(), NoisedDecoderConfig(embed=768)
STABLE_UNCLIP = Family(
    "Stable unCLIP", "decoder",
    ("conv_in.weight", "class_embedding.linear_1.weight", "mid_block.attentions.0.proj_in.weight",
     "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
    decoder_config, NoisedDecoder, decoder_names, published={"2.1": BIG, "2.1 small": SMALL}, licence=LICENCE,
)  # fmt: skip
NOISER = Family(
    "Stable unCLIP, image normaliser", "noise on z_i", ("mean", "std"), noiser_config, Noiser, noiser_names,
    published={"2.1": NoiserConfig(1024), "2.1 small": NoiserConfig(768)}, licence=LICENCE,
)  # fmt: skip
