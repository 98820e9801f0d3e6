"""CLIP in a folder of Hugging Face's: whole, or one tower with its projection, as unCLIP pipelines keep them.

Its config.json says what shapes cannot: how many heads there are, and which activation.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig, ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import NONE, Family, From, Names, Schema, joined, led
from unclip.weights.openai_clip import HEADS, MEAN, OPEN, OPENAI, STD, side

BLOCK: dict[str, str | From] = {
    "attention.qkv.{p}": joined("self_attn.q_proj.{p}", "self_attn.k_proj.{p}", "self_attn.v_proj.{p}"),
    "attention.out.{p}": "self_attn.out_proj.{p}",
    "norm_1.{p}": "layer_norm1.{p}",
    "norm_2.{p}": "layer_norm2.{p}",
    "mlp.0.{p}": "mlp.fc1.{p}",
    "mlp.2.{p}": "mlp.fc2.{p}",
}


def blocks(prefix: str) -> dict[str, str | From]:
    def place(key: str) -> str:
        return f"{prefix}.encoder.layers.{{i}}.{key}"

    ours = "transformer.blocks.{i}."
    return {ours + part: place(way) if isinstance(way, str) else way.renamed(place) for part, way in BLOCK.items()}


TEXT: dict[str, str | From] = {
    "tokens.weight": "text_model.embeddings.token_embedding.weight",
    "position": led("text_model.embeddings.position_embedding.weight"),
    "transformer.norm.{p}": "text_model.final_layer_norm.{p}",
    "project.weight": "text_projection.weight",
    **blocks("text_model"),
}
IMAGE: dict[str, str | From] = {
    "patches.weight": "vision_model.embeddings.patch_embedding.weight",
    "patches.bias": NONE,
    "first": led("vision_model.embeddings.class_embedding", 2),
    "position": led("vision_model.embeddings.position_embedding.weight"),
    "norm.{p}": "vision_model.pre_layrnorm.{p}",  # as it is spelt there
    "transformer.norm.{p}": "vision_model.post_layernorm.{p}",
    "project.weight": "visual_projection.weight",
    **blocks("vision_model"),
}
WHOLE = {
    "log_scale": "logit_scale",
    **{f"text.{ours}": way for ours, way in TEXT.items()},
    **{f"image.{ours}": way for ours, way in IMAGE.items()},
}
UNUSED = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


def noted(found: Schema, tower: str) -> Mapping[str, Any]:
    """What config.json says of a tower: a part of it, or all of it where the folder holds one tower."""
    config = found.about.get("config")
    config = config if isinstance(config, dict) else {}
    part = config.get(f"{tower}_config_dict") or config.get(f"{tower}_config") or config
    return part if isinstance(part, dict) else {}


def transformer(found: Schema, tower: Literal["text", "vision"]) -> TransformerConfig:
    prefix, said = f"{tower}_model", noted(found, tower)
    width = found.size(f"{prefix}.encoder.layers.0.layer_norm1.weight")
    hidden = found.size(f"{prefix}.encoder.layers.0.mlp.fc1.weight")
    heads = said.get("num_attention_heads", HEADS.get(width, width // 64) if tower == "vision" else width // 64)
    activation = said.get("hidden_act", "quick_gelu")
    if activation not in ("gelu", "quick_gelu") or not isinstance(heads, int) or heads < 1 or width % heads:
        raise UnclipError(f"its config.json asks for {heads!r} heads and {activation!r}, expected gelu or quick_gelu")
    depth = found.count(f"{prefix}.encoder.layers.{{i}}.{{rest}}")
    mlp = None if hidden == 4 * width else hidden
    return TransformerConfig(width, depth, heads, activation=activation, mlp=mlp)


def text(found: Schema) -> dict[str, Any]:
    vocab, end = found.size("text_model.embeddings.token_embedding.weight"), noted(found, "text").get("eos_token_id", 2)
    return {
        "text": transformer(found, "text"), "vocab": vocab,
        "context": found.size("text_model.embeddings.position_embedding.weight"),
        "end": end if isinstance(end, int) and 2 < end < vocab else vocab - 1,  # 2 is a mistake of old folders
    }  # fmt: skip


def image(found: Schema) -> dict[str, Any]:
    patch, key = found.size(PATCHES, 2), "vision_model.embeddings.position_embedding.weight"
    return {
        "image": transformer(found, "vision"), "patch": patch, "image_size": patch * side(found.size(key), key),
        "pre_norm": True, "mean": MEAN, "std": STD,
    }  # fmt: skip


def whole_config(found: Schema) -> CLIPConfig:
    return CLIPConfig(found.size("text_projection.weight"), **text(found), **image(found))


def text_config(found: Schema) -> TextTowerConfig:
    return TextTowerConfig(found.size("text_projection.weight"), **text(found))


def image_config(found: Schema) -> ImageTowerConfig:
    return ImageTowerConfig(found.size("visual_projection.weight"), **image(found))


def bare_config(found: Schema, prefix: str = "") -> TextTowerConfig:
    """Of a text tower without a projection. What stands before `prefix` elsewhere, its keys lack here."""
    return TextTowerConfig(0, **text(Schema({prefix + key: spec for key, spec in found.items()}, found.about)))


def bare_names(_: CLIPConfig, prefix: str = "") -> Names:
    """As those of a tower with its projection, less `prefix`."""

    def short(key: str) -> str:
        return key.removeprefix(prefix)

    kept = {ours: way for ours, way in TEXT.items() if ours != "project.weight"}
    return {ours: short(way) if isinstance(way, str) else way.renamed(short) for ours, way in kept.items()}


def whole_names(_: CLIPConfig) -> Names:
    return WHOLE


def text_names(_: CLIPConfig) -> Names:
    return TEXT


def image_names(_: CLIPConfig) -> Names:
    return IMAGE


PATCHES = "vision_model.embeddings.patch_embedding.weight"
TEXT_SIGNS = ("text_model.embeddings.token_embedding.weight", "text_projection.weight",
              "text_model.final_layer_norm.bias")  # fmt: skip
IMAGE_SIGNS = (PATCHES, "visual_projection.weight", "vision_model.pre_layrnorm.weight")
VITS = {f"{project} {name}": c for project, models in (("OpenAI", OPENAI), ("open_clip", OPEN))
        for name, c in models.items() if c.resnet is None}  # fmt: skip
HF_CLIP = Family(
    "Hugging Face CLIP", "clip", (*TEXT_SIGNS, *IMAGE_SIGNS, "logit_scale"), whole_config, CLIP, whole_names,
    UNUSED, VITS, "MIT, mostly",
)  # fmt: skip
HF_TEXT = Family(
    "Hugging Face CLIP, text tower", "text encoder", TEXT_SIGNS, text_config, TextTower, text_names, UNUSED,
    {name: TextTowerConfig(c.embed, text=c.text, vocab=c.vocab, context=c.context, end=c.end)
     for name, c in VITS.items()}, "MIT, mostly",
)  # fmt: skip
# Stable Diffusion 2's caption encoder: open_clip's H/14 up to its last block but one.
BARE = {"open_clip ViT-H/14, 23 layers": TextTowerConfig(
    0, text=TransformerConfig(1024, 23, 16), vocab=49408, context=77, end=49407
)}  # fmt: skip
HF_TEXT_BARE = Family(
    "Hugging Face CLIP, text tower without projection", "text encoder",
    ("text_model.embeddings.token_embedding.weight", "text_model.final_layer_norm.bias"),
    bare_config, TextTower, bare_names, UNUSED, BARE, "MIT, mostly",
)  # fmt: skip
HF_TEXT_SHORT = Family(  # as transformers names it since 5.0
    "Hugging Face CLIP, text tower without projection or prefix", "text encoder",
    ("embeddings.token_embedding.weight", "final_layer_norm.bias", "encoder.layers.{i}.self_attn.q_proj.weight"),
    partial(bare_config, prefix="text_model."), TextTower, partial(bare_names, prefix="text_model."),
    ("embeddings.position_ids",), BARE, "MIT, mostly",
)  # fmt: skip
HF_IMAGE = Family(
    "Hugging Face CLIP, picture tower", "image encoder", IMAGE_SIGNS, image_config, ImageTower, image_names, UNUSED,
    {name: ImageTowerConfig(c.embed, c.image_size, c.patch, c.image, pre_norm=True, mean=MEAN, std=STD)
     for name, c in VITS.items()}, "MIT, mostly",
)  # fmt: skip
