"""GLIDE's noised CLIP: `clip_image_enc.pt` and `clip_text_enc.pt`. Its keys have no bias, ours are zero there."""

from math import isqrt

import torch
from torch import Tensor

from unclip.errors import UnclipError
from unclip.models.noised_clip import NoisedImageConfig, NoisedImageEncoder, NoisedTextConfig, NoisedTextEncoder
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import Family, From, Names, Schema, joined, led

AT = "blocks.block_{i}."


def without_key(q: Tensor, v: Tensor) -> Tensor:
    return torch.cat([q, torch.zeros_like(q), v])


BLOCK: dict[str, str | From] = {
    "norm_1.weight": f"{AT}f_attn.ln.g",
    "norm_1.bias": f"{AT}f_attn.ln.b",
    "attention.qkv.weight": joined(f"{AT}f_attn.f_q.w", f"{AT}f_attn.f_k.w", f"{AT}f_attn.f_v.w"),
    "attention.qkv.bias": From((f"{AT}f_attn.f_q.b", f"{AT}f_attn.f_v.b"), without_key, lambda w: w.chunk(3)[::2]),
    "attention.out.weight": f"{AT}f_attn.f_c.w",
    "attention.out.bias": f"{AT}f_attn.f_c.b",
    "norm_2.weight": f"{AT}f_mlp.ln.g",
    "norm_2.bias": f"{AT}f_mlp.ln.b",
    "mlp.0.weight": f"{AT}f_mlp.f_1.w",
    "mlp.0.bias": f"{AT}f_mlp.f_1.b",
    "mlp.2.weight": f"{AT}f_mlp.f_2.w",
    "mlp.2.bias": f"{AT}f_mlp.f_2.b",
}
BOTH: dict[str, str | From] = {
    **{f"transformer.blocks.{{i}}.{ours}": theirs for ours, theirs in BLOCK.items()},
    "position": led("blocks.input.w_pos"),
    "transformer.norm.weight": "blocks.output.ln.g",
    "transformer.norm.bias": "blocks.output.ln.b",
    "project.weight": "blocks.output.f.w",
}
IMAGE = BOTH | {
    "patches.weight": "blocks.input.patch_proj",
    "time.weight": "blocks.input.w_t",
    "norm.weight": "blocks.input.ln.g",
    "norm.bias": "blocks.input.ln.b",
}
TEXT = BOTH | {"tokens.weight": "blocks.input.w_voc"}


def image_names(_: NoisedImageConfig) -> Names:
    return IMAGE


def text_names(_: NoisedTextConfig) -> Names:
    return TEXT


def tower(found: Schema) -> TransformerConfig:
    """A head is 64 wide."""
    width = found.size("blocks.output.ln.g")
    return TransformerConfig(width, found.count("blocks.block_{i}.{rest}"), width // 64 or 1)


def image_config(found: Schema) -> NoisedImageConfig:
    patch, places = found.size("blocks.input.patch_proj", 2), found.size("blocks.input.w_pos") - 1
    if isqrt(places) ** 2 != places:
        raise UnclipError(f"'blocks.input.w_pos' has {places + 1} rows, expected a square and one")
    embed, steps = found.size("blocks.output.f.w"), found.size("blocks.input.w_t")
    return NoisedImageConfig(embed, patch * isqrt(places), patch, steps, tower(found))


def text_config(found: Schema) -> NoisedTextConfig:
    embed, vocab, context = (found.size(f"blocks.{key}") for key in ("output.f.w", "input.w_voc", "input.w_pos"))
    return NoisedTextConfig(embed, vocab, context, min(49407, vocab - 1), tower(found))


SIGNS = ("blocks.input.w_pos", "blocks.output.f.w", "blocks.block_{i}.f_attn.f_k.w")
GLIDE_CLIP_IMAGE = Family(
    "GLIDE noised CLIP, pictures", "guide", (*SIGNS, "blocks.input.w_t", "blocks.input.patch_proj"), image_config,
    NoisedImageEncoder, image_names, published={"": NoisedImageConfig()}, licence="MIT",
)  # fmt: skip
GLIDE_CLIP_TEXT = Family(
    "GLIDE noised CLIP, captions", "guide", (*SIGNS, "blocks.input.w_voc"), text_config,
    NoisedTextEncoder, text_names, published={"": NoisedTextConfig()}, licence="MIT",
)  # fmt: skip
