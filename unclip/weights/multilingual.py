"""Multilingual CLIP's text tower as its authors and diffusers keep it: XLM-R's names, and one map behind it."""

from typing import Any

from unclip.errors import UnclipError
from unclip.models.multilingual import MultilingualCLIP, MultilingualConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import Family, From, Names, Schema, joined

LAYER = "transformer.encoder.layer.{i}."
NAMES: dict[str, str | From] = {
    "tokens.weight": "transformer.embeddings.word_embeddings.weight",
    "position.weight": "transformer.embeddings.position_embeddings.weight",
    "kind.weight": "transformer.embeddings.token_type_embeddings.weight",
    "norm.{p}": "transformer.embeddings.LayerNorm.{p}",
    "project.{p}": "LinearTransformation.{p}",
    "transformer.blocks.{i}.attention.qkv.{p}": joined(
        *(f"{LAYER}attention.self.{part}.{{p}}" for part in ("query", "key", "value"))
    ),
    "transformer.blocks.{i}.attention.out.{p}": f"{LAYER}attention.output.dense.{{p}}",
    "transformer.blocks.{i}.norm_1.{p}": f"{LAYER}attention.output.LayerNorm.{{p}}",
    "transformer.blocks.{i}.mlp.0.{p}": f"{LAYER}intermediate.dense.{{p}}",
    "transformer.blocks.{i}.mlp.2.{p}": f"{LAYER}output.dense.{{p}}",
    "transformer.blocks.{i}.norm_2.{p}": f"{LAYER}output.LayerNorm.{{p}}",
}


def config(found: Schema) -> MultilingualConfig:
    """What shapes tell; config.json tells the heads, XLM-R's usual 64 wide where there is none."""
    about: Any = found.about.get("config")
    said = about if isinstance(about, dict) else {}
    words = "transformer.embeddings.word_embeddings.weight"
    width, hidden = found.size(words, 1), found.size("transformer.encoder.layer.0.intermediate.dense.weight")
    heads, activation = said.get("num_attention_heads", width // 64), said.get("hidden_act", "gelu")
    eps, pad = said.get("layer_norm_eps", 1e-5), said.get("pad_token_id", 1)
    if activation != "gelu" or not isinstance(heads, int) or heads < 1 or width % heads:
        raise UnclipError(f"its config.json asks for {heads!r} heads and {activation!r}, expected gelu")
    if not isinstance(eps, float) or not isinstance(pad, int):
        raise UnclipError(f"its config.json has layer_norm_eps {eps!r} and pad_token_id {pad!r}, expected numbers")
    depth = found.count(f"{LAYER}output.dense.weight")
    text = TransformerConfig(width, depth, heads, mlp=None if hidden == 4 * width else hidden, post_norm=True, eps=eps)
    context = found.size("transformer.embeddings.position_embeddings.weight")
    kinds = found.size("transformer.embeddings.token_type_embeddings.weight")
    return MultilingualConfig(found.size("LinearTransformation.weight"), found.size(words), context, kinds, pad, text)


def names(_: MultilingualConfig) -> Names:
    return NAMES


MULTILINGUAL_CLIP = Family(
    "Multilingual CLIP, text tower", "text encoder",
    ("LinearTransformation.weight", "transformer.embeddings.word_embeddings.weight",
     "transformer.encoder.layer.{i}.attention.self.query.weight"),
    config, MultilingualCLIP, names,
    ("transformer.embeddings.position_ids", "transformer.embeddings.token_type_ids", "transformer.pooler.{rest}"),
    {"XLM-R large, ViT-L/14": MultilingualConfig()}, "MIT",
)  # fmt: skip
