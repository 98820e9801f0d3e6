"""Image-GPT: OpenAI's TensorFlow checkpoints, `model.ckpt-1000000.index` beside its shards (Chen et al. 2020)."""

import torch
from torch import Tensor

from unclip.models.image_gpt import ImageGPT, ImageGPTConfig, tower
from unclip.weights.family import NONE, Family, From, Names, Schema, led, transposed


def heads_joined(w: Tensor) -> Tensor:
    return w.flatten(0, 1)


def names(config: ImageGPTConfig) -> Names:
    """Their projections are apart by head, [heads, head width, width], for q, k, v and the output alike."""
    heads, at = config.transformer.heads, "model/h{i}/"
    qkv = From(
        tuple(f"{at}attn/{name}_proj" for name in "qkv"),
        lambda *w: torch.cat([heads_joined(v) for v in w]),
        lambda w: [v.unflatten(0, (heads, -1)) for v in w.chunk(3)],
    )
    out = From((f"{at}attn/c_proj",), lambda w: heads_joined(w).mT, lambda w: [w.mT.unflatten(0, (heads, -1))])
    tokens = From(
        ("model/wte", "model/sos"), lambda wte, sos: torch.cat([wte, sos[None]]), lambda w: [w[:-1], w[-1]]
    )  # fmt: skip
    block = {
        "norm_1.weight": f"{at}ln_1/g", "norm_2.weight": f"{at}ln_2/g", "attention.qkv.weight": qkv,
        "attention.out.weight": out, "mlp.0.weight": transposed(f"{at}mlp/c_fc/w"),
        "mlp.2.weight": transposed(f"{at}mlp/c_proj/w"), "attention.{one}.bias": NONE, "mlp.{n}.bias": NONE,
    }  # fmt: skip
    return {
        "tokens.weight": tokens,
        "position": led("model/wpe"),
        "out.weight": "model/wtet",
        "transformer.norm.weight": "model/ln_f/g",
        **{f"transformer.blocks.{{i}}.{ours}": theirs for ours, theirs in block.items()},
    }


def config(found: Schema) -> ImageGPTConfig:
    width, depth = found.size("model/ln_f/g"), found.count("model/h{i}/{rest}")
    heads = found.size("model/h0/attn/q_proj")
    return ImageGPTConfig(found.size("model/wte"), found.size("model/wpe"), tower(width, depth, heads))


IMAGE_GPT = Family(
    "Image-GPT", "sequence", ("model/wte", "model/wtet", "model/sos", "model/h{i}/attn/q_proj"), config, ImageGPT,
    names,
    unused=("global_step", "model/{rest}/Adam", "model/{rest}/Adam_1", "{rest}/adam_m", "{rest}/adam_v",
            "beta{i}_power", "model/clf/wclf"),
    published={"S": ImageGPTConfig(transformer=tower(512, 24, 8)), "M": ImageGPTConfig(transformer=tower(1024, 36, 8)),
               "L": ImageGPTConfig(transformer=tower(1536, 48, 16))},
    licence="modified MIT",
)  # fmt: skip
