"""Multilingual CLIP's text tower as its authors and diffusers keep it: XLM-R's names, and one map behind it. And BERT's
under the same names, as sentence-transformers keeps it."""

from typing import Any

import torch

from unclip.errors import UnclipError
from unclip.models.multilingual import MultilingualCLIP, MultilingualConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import Family, From, Names, Schema, joined, same

PREFIX = "transformer."  # before every name of the tower, not of BERT
LAYER = "encoder.layer.{i}."
WORDS, PLACES, KINDS = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
NAMES: dict[str, From] = {
    "tokens.weight": same(WORDS),
    "position.weight": same(PLACES),
    "kind.weight": same(KINDS),
    "norm.{p}": same("embeddings.LayerNorm.{p}"),
    "transformer.blocks.{i}.attention.qkv.{p}": joined(
        *(f"{LAYER}attention.self.{part}.{{p}}" for part in ("query", "key", "value"))
    ),
    "transformer.blocks.{i}.attention.out.{p}": same(f"{LAYER}attention.output.dense.{{p}}"),
    "transformer.blocks.{i}.norm_1.{p}": same(f"{LAYER}attention.output.LayerNorm.{{p}}"),
    "transformer.blocks.{i}.mlp.0.{p}": same(f"{LAYER}intermediate.dense.{{p}}"),
    "transformer.blocks.{i}.mlp.2.{p}": same(f"{LAYER}output.dense.{{p}}"),
    "transformer.blocks.{i}.norm_2.{p}": same(f"{LAYER}output.LayerNorm.{{p}}"),
}
UNUSED = ("embeddings.position_ids", "embeddings.token_type_ids", "pooler.{rest}")
PROJECTION = "LinearTransformation.weight"


def config(found: Schema) -> MultilingualConfig:
    """What shapes tell; config.json tells the heads, XLM-R's usual 64 wide where there is none."""
    about: Any = found.about.get("config")
    said = about if isinstance(about, dict) else {}
    prefix = PREFIX if PROJECTION in found else ""
    width, hidden = found.size(prefix + WORDS, 1), found.size(f"{prefix}{LAYER}intermediate.dense.weight".format(i=0))
    heads, activation = said.get("num_attention_heads", width // 64), said.get("hidden_act", "gelu")
    eps, pad = said.get("layer_norm_eps", 1e-5), said.get("pad_token_id", 1 if prefix else 0)
    if activation != "gelu" or not isinstance(heads, int) or heads < 1 or width % heads:
        raise UnclipError(f"its config.json asks for {heads!r} heads and {activation!r}, expected gelu")
    if not isinstance(eps, float) or not isinstance(pad, int):
        raise UnclipError(f"its config.json has layer_norm_eps {eps!r} and pad_token_id {pad!r}, expected numbers")
    depth = found.count(f"{prefix}{LAYER}{{rest}}")
    text = TransformerConfig(width, depth, heads, mlp=None if hidden == 4 * width else hidden, post_norm=True, eps=eps)
    context = found.size(prefix + PLACES) + (not prefix)
    kinds = found.size(prefix + KINDS)
    embed = found.size(PROJECTION) if prefix else None
    return MultilingualConfig(embed, found.size(prefix + WORDS), context, kinds, pad, text)


def names(_: MultilingualConfig) -> Names:
    theirs = {ours: way.renamed(lambda key: PREFIX + key) for ours, way in NAMES.items()}
    return theirs | {"project.{p}": same("LinearTransformation.{p}")}


def bert_names(_: MultilingualConfig) -> Names:
    """BERT's first position is 0, where XLM-R has one more, that of padding, before it."""
    places = From((PLACES,), lambda w: torch.cat([torch.zeros_like(w[:1]), w]), lambda w: [w[1:]])
    return NAMES | {"position.weight": places}


MULTILINGUAL_CLIP = Family(
    "Multilingual CLIP, text tower", "text encoder",
    (PROJECTION, PREFIX + WORDS, f"{PREFIX}{LAYER}attention.self.query.weight"),
    config, MultilingualCLIP, names, tuple(PREFIX + key for key in UNUSED),
    {"XLM-R large, ViT-L/14": MultilingualConfig()}, "MIT",
)  # fmt: skip
MINILM = TransformerConfig(384, 6, 12, post_norm=True, eps=1e-12)
SENTENCES = Family(
    "sentence encoder of BERT's kind", "text encoder", (WORDS, f"{LAYER}attention.self.query.weight"),
    config, MultilingualCLIP, bert_names, UNUSED,
    {"all-MiniLM-L6-v2": MultilingualConfig(None, 30_522, 513, 2, 0, MINILM)}, "Apache-2.0",
)  # fmt: skip
