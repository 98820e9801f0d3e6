"""unCLIP pipelines as diffusers saves them: Karlo's networks and Kandinsky's, of which some lie in two folders.

A network in two folders is read as one file: each key has its folder's name before it (`load.together`).
"""

from dataclasses import replace
from typing import Any

from unclip.diffusion.process import Process
from unclip.errors import UnclipError
from unclip.models.encoded_decoder import EncodedDecoder, EncodedDecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNet, UNetConfig
from unclip.weights import diffusers_unet, kandinsky, karlo
from unclip.weights.adm_unet import both
from unclip.weights.family import Family, From, Names, Schema, joined, same


def single(process: Process) -> Process:
    return replace(process, single=True)


PUBLISHED_PRIOR = replace(karlo.PRIOR, reach=5.0, diffusion=single(karlo.PRIOR.diffusion))
PUBLISHED_DECODER = replace(karlo.DECODER, diffusion=single(karlo.DECODER.diffusion))
PUBLISHED_UPSAMPLER = replace(karlo.UPSAMPLER, diffusion=single(karlo.UPSAMPLER.diffusion))


def said(found: Schema, part: str = "config") -> dict[str, Any]:
    config = found.about.get(part)
    return config if isinstance(config, dict) else {}


# ---- the prior -------------------------------------------------------------------------------------------------


def prior_config(found: Schema) -> PriorConfig:
    width, depth = found.size("prd_embedding", 2), found.count("transformer_blocks.{i}.{rest}")
    heads = said(found).get("num_attention_heads", width // 64)
    reach = float(said(found, "scheduler").get("clip_sample_range", PUBLISHED_PRIOR.reach))
    return replace(PUBLISHED_PRIOR, reach=reach, embed=found.size("proj_in.weight", 1),
                   text=found.size("encoder_hidden_states_proj.weight", 1),
                   context=found.size("positional_embedding", 1) - 4,
                   transformer=TransformerConfig(width, depth, heads if isinstance(heads, int) else 1))  # fmt: skip


def prior_names(c: PriorConfig) -> Names:
    names: dict[str, From] = {
        "final": same("prd_embedding"), "position": same("positional_embedding"),
        "space.mean": From(("clip_mean",), lambda w: w[0], lambda w: [w[None]]),
        "space.deviation": From(("clip_std",), lambda w: w[0], lambda w: [w[None]]),
    }  # fmt: skip
    for a, b in {"text": "encoder_hidden_states_proj", "z_t": "embedding_proj", "z_i": "proj_in",
                 "out": "proj_to_clip_embeddings", "time.0": "time_embedding.linear_1",
                 "time.2": "time_embedding.linear_2", "transformer.norm": "norm_out"}.items():  # fmt: skip
        names |= both(a, b)
    for i in range(c.transformer.depth):
        ours, theirs = f"transformer.blocks.{i}", f"transformer_blocks.{i}"
        for a, b in {"norm_1": "norm1", "norm_2": "norm3", "mlp.0": "ff.net.0.proj", "mlp.2": "ff.net.2",
                     "attention.out": "attn1.to_out.0"}.items():  # fmt: skip
            names |= both(f"{ours}.{a}", f"{theirs}.{b}")
        for p in ("weight", "bias"):
            names[f"{ours}.attention.qkv.{p}"] = joined(*(f"{theirs}.attn1.to_{part}.{p}" for part in "qkv"))
    return names


# ---- decoders --------------------------------------------------------------------------------------------------


def karlo_config(found: Schema) -> EncodedDecoderConfig:
    unet = diffusers_unet.config(found, "decoder.", said(found, "decoder"))
    tokens = found.size("text_proj.clip_extra_context_tokens_proj.weight") // max(1, unet.context or 1)
    embed = found.size("text_proj.learned_classifier_free_guidance_embeddings")
    text = found.size("text_proj.encoder_hidden_states_proj.weight", 1)
    size = said(found, "decoder").get("sample_size", 64)
    return replace(PUBLISHED_DECODER, size=size, embed=embed, pooled=embed, text=text, image_tokens=tokens, unet=unet)


def karlo_names(c: EncodedDecoderConfig) -> Names:
    tokens = karlo.side_by_side(c.image_tokens, "text_proj.clip_extra_context_tokens_proj")
    null = {"null_z": same("text_proj.learned_classifier_free_guidance_embeddings")}
    names = diffusers_unet.unet(c.unet, "unet.", "decoder.") | tokens | null
    for a, b in {"z_emb.0": "clip_image_embeddings_project_to_time_embeddings", "text_emb.0": "embedding_proj",
                 "text.0": "encoder_hidden_states_proj",
                 "text.1": "text_encoder_hidden_states_norm"}.items():  # fmt: skip
        names |= both(a, f"text_proj.{b}")
    return names


DECODER_22 = replace(kandinsky.DECODER, embed=1280, pooled=0, text=0, image_tokens=32, normed=("z_emb", "z_tokens"))
DEPTH_22 = replace(DECODER_22, hint=True, unet=replace(DECODER_22.unet, layout=4))


def kandinsky_config(found: Schema) -> EncodedDecoderConfig:
    """Of 2.1 with a caption's tokens, or of 2.2 with none."""
    plain = diffusers_unet.config(found, "", said(found))
    channels, read = plain.out_channels // 2, "encoder_hid_proj.text_proj.weight" in found
    unet = diffusers_unet.config(found, "", said(found), plain.in_channels - channels)
    image = "encoder_hid_proj.image_embeds.weight"
    embed, tokens = found.size(image, 1), found.size(image) // max(1, unet.context or 1)
    size = said(found).get("sample_size", 64)
    if not read:
        hint = found.holds("add_embedding.input_hint_block.{rest}")
        return replace(DECODER_22, size=size, channels=channels, embed=embed, image_tokens=tokens, hint=hint, unet=unet)
    return replace(kandinsky.DECODER, size=size, channels=channels, embed=embed, image_tokens=tokens, unet=unet,
                   pooled=found.size("add_embedding.text_proj.weight", 1),
                   text=found.size("encoder_hid_proj.text_proj.weight", 1))  # fmt: skip


def kandinsky_names(c: EncodedDecoderConfig) -> Names:
    names = diffusers_unet.unet(c.unet)
    if c.text:
        pairs = {"z_emb.0": "add_embedding.image_proj", "text_emb.0": "add_embedding.text_proj",
                 "text_emb.1": "add_embedding.text_norm", "text.0": "encoder_hid_proj.text_proj",
                 "z_tokens.0": "encoder_hid_proj.image_embeds"}  # fmt: skip
    else:
        pairs = {"z_emb.0": "add_embedding.image_proj", "z_emb.1": "add_embedding.image_norm",
                 "z_tokens.0": "encoder_hid_proj.image_embeds", "z_tokens.2": "encoder_hid_proj.norm"}  # fmt: skip
    for a, b in pairs.items():
        names |= both(a, b)
    for i in range(0, 15, 2):
        names |= both(f"hint.{i}", f"add_embedding.input_hint_block.{i}")
    return names


# ---- the upsampler ---------------------------------------------------------------------------------------------


def upsampler_config(found: Schema) -> UpsamplerConfig:
    unet = diffusers_unet.config(found, "super_res_first.", said(found, "super_res_first"))
    size = said(found, "super_res_first").get("sample_size", 256)
    return replace(PUBLISHED_UPSAMPLER, size=size, low=size // 4, unet=unet)


def upsampler_names(c: UpsamplerConfig) -> Names:
    return (diffusers_unet.unet(c.unet, "unet.", "super_res_first.")
            | diffusers_unet.unet(c.unet, "last.", "super_res_last."))  # fmt: skip


def half_config(found: Schema) -> UNetConfig:
    c = diffusers_unet.config(found)
    if c.attention:
        raise UnclipError("it has attention, which no half of Karlo's upsampler has")
    return c


def half_names(c: UNetConfig) -> Names:
    return diffusers_unet.unet(c, "")


PRIOR = Family(
    "unCLIP prior of diffusers", "prior",
    ("prd_embedding", "proj_to_clip_embeddings.weight", "clip_mean", "transformer_blocks.{i}.attn1.to_q.weight"),
    prior_config, Prior, prior_names, unused=("causal_attention_mask",),
    published={"1B": PUBLISHED_PRIOR, "of Kandinsky 2.2": replace(PUBLISHED_PRIOR, embed=1280, text=1280)},
)  # fmt: skip
KARLO_DECODER = Family(
    "Karlo decoder of diffusers", "decoder", ("decoder.conv_in.weight", "text_proj.embedding_proj.weight"),
    karlo_config, EncodedDecoder, karlo_names, published={"v1 alpha": PUBLISHED_DECODER}, licence=karlo.LICENCE,
)  # fmt: skip
KARLO_UPSAMPLER = Family(
    "Karlo upsampler of diffusers", "upsampler", ("super_res_first.conv_in.weight", "super_res_last.conv_in.weight"),
    upsampler_config, Upsampler, upsampler_names, published={"v1 alpha": PUBLISHED_UPSAMPLER}, licence=karlo.LICENCE,
)  # fmt: skip
KARLO_HALF = Family(  # as it lies in a folder of its own
    "Karlo upsampler of diffusers, one half", "upsampler",
    ("conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.{i}.downsamplers.0.conv1.weight"),
    half_config, UNet, half_names, published={"v1 alpha": PUBLISHED_UPSAMPLER.unet}, licence=karlo.LICENCE,
)  # fmt: skip
KANDINSKY = Family(
    "Kandinsky decoder of diffusers", "decoder",
    ("encoder_hid_proj.image_embeds.weight", "add_embedding.image_proj.weight", "conv_in.weight"),
    kandinsky_config, EncodedDecoder, kandinsky_names, licence="Apache-2.0",
    published={"2.1": kandinsky.DECODER, "2.1 inpainting": kandinsky.INPAINT, "2.2": DECODER_22, "2.2 led by depth":
               DEPTH_22, "2.2 inpainting": replace(DECODER_22, unet=replace(DECODER_22.unet, layout=5))},
)  # fmt: skip
