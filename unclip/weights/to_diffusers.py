"""Networks in the form in which diffusers and transformers keep them, so that what is loaded here can go back there."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import write_bytes, write_json, writing
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.encoded_decoder import EncodedDecoder
from unclip.models.prior import Prior
from unclip.models.tokenizer import CLIP_END, CLIP_START, Tokenizer
from unclip.models.upsampler import Upsampler
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import diffusers, hf_clip
from unclip.weights.checkpoint import CONFIG, WEIGHTS, write_tensors
from unclip.weights.family import Family, sources
from unclip.weights.hub import INDEX

DIFFUSERS = "diffusion_pytorch_model.safetensors"


def theirs(net: nn.Module, family: Family) -> dict[str, Tensor]:
    """The tensors of a network of ours under the family's names: the reader's way, taken back."""
    ours = net.state_dict()
    ways = sources(family.names(net.config), ours)
    return {name: w for key, way in ways.items() for name, w in zip(way.theirs, way.back(ours[key]), strict=True)}


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype,
          file: str = DIFFUSERS) -> None:  # fmt: skip
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / file, tensors, dtype, {"format": "pt"})
    write_json(folder / CONFIG, config)


def within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Those whose names begin with `part`, without it."""
    return {name.removeprefix(f"{part}."): w for name, w in tensors.items() if name.startswith(f"{part}.")}


# ---- CLIP ------------------------------------------------------------------------------------------------------


def tower(c: CLIPConfig, t: TransformerConfig, kind: str) -> dict[str, Any]:
    return {"model_type": f"clip_{kind}_model", "hidden_size": t.width, "intermediate_size": t.mlp or 4 * t.width,
            "num_hidden_layers": t.depth, "num_attention_heads": t.heads, "hidden_act": t.activation,
            "layer_norm_eps": 1e-5, "projection_dim": c.embed}  # fmt: skip


def text_config(c: CLIPConfig) -> dict[str, Any]:
    return {**tower(c, c.text, "text"), "vocab_size": c.vocab, "max_position_embeddings": c.context,
            "bos_token_id": c.end - 1, "eos_token_id": c.end, "pad_token_id": 0}  # fmt: skip


def image_config(c: CLIPConfig) -> dict[str, Any]:
    return {**tower(c, c.image, "vision"), "image_size": c.image_size, "patch_size": c.patch}


def clip(folder: Path, net: CLIP, dtype: torch.dtype) -> Path:
    """transformers' CLIPModel. Raises UnclipError for a CLIP that transformers has no network for."""
    c = net.config
    if c.resnet is not None or c.sketch or not c.pre_norm:
        raise UnclipError("transformers has no CLIP that sees pictures by a ResNet, by a ViT without a normalisation "
                          "before it, or with a thumbnail beside it; it has OpenAI's ViTs and open_clip's")  # fmt: skip
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": c.embed,
              "text_config": text_config(c), "vision_config": image_config(c)}  # fmt: skip
    write(folder, config, theirs(net, hf_clip.HF_CLIP), dtype, WEIGHTS)
    return folder


# ---- Karlo -----------------------------------------------------------------------------------------------------


def prior_config(net: Prior) -> dict[str, Any]:
    c, t = net.config, net.config.transformer
    return {"_class_name": "PriorTransformer", "num_attention_heads": t.heads, "attention_head_dim": t.width // t.heads,
            "num_layers": t.depth, "embedding_dim": c.embed, "num_embeddings": c.context,
            "additional_embeddings": 4}  # fmt: skip


def blocks(c: UNetConfig, attends: str, plain: str) -> list[str]:
    return [attends if level in c.attention else plain for level in range(len(c.channels))]


def unet_config(c: UNetConfig, size: int) -> dict[str, Any]:
    plain = "Resnet{}sampleBlock2D"
    down, up = (blocks(c, f"SimpleCrossAttn{way}Block2D", plain.format(way)) for way in ("Down", "Up"))
    return {"sample_size": size, "in_channels": c.in_channels, "out_channels": c.out_channels,
            "block_out_channels": list(c.channels), "layers_per_block": c.depth, "down_block_types": down,
            "up_block_types": up[::-1], "attention_head_dim": c.head,
            "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default"}  # fmt: skip


def decoder_config(net: EncodedDecoder) -> dict[str, Any]:
    c = net.config.unet
    return {"_class_name": "UNet2DConditionModel", **unet_config(c, net.config.size), "cross_attention_dim": c.context,
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "class_embed_type": "identity"}  # fmt: skip


def project_config(net: EncodedDecoder) -> dict[str, Any]:
    c = net.config
    return {"_class_name": "UnCLIPTextProjModel", "clip_extra_context_tokens": c.image_tokens,
            "clip_embeddings_dim": c.embed, "time_embed_dim": c.unet.emb,
            "cross_attention_dim": c.unet.context}  # fmt: skip


def upsampler_config(net: Upsampler) -> dict[str, Any]:
    return {"_class_name": "UNet2DModel", **unet_config(net.config.unet, net.config.size), "add_attention": False}


def schedulers(prior: Prior) -> Iterator[tuple[str, dict[str, Any]]]:
    x0 = {"prediction_type": "sample", "clip_sample_range": prior.config.reach}
    for name, said in {"prior": x0, "decoder": {"variance_type": "learned_range"}, "super_res": {}}.items():
        yield f"{name}_scheduler", {"_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000, **said}


def tokenizer(folder: Path, bpe: Tokenizer, context: int) -> None:
    """CLIP's vocabulary and merges as transformers reads them."""
    model = json.loads(bpe.bpe.to_str())["model"]
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", model["vocab"])
    write_bytes(folder / "merges.txt", "\n".join(["#version: 0.2", *pairs, ""]).encode())
    special = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": CLIP_END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json",
               {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": context})  # fmt: skip


def karlo(folder: Path, bpe: Tokenizer, parts: Mapping[str, Any], both: CLIP, dtype: torch.dtype) -> Path:
    """The folder of diffusers' UnCLIPPipeline, and CLIP's picture tower beside it, which image variations ask for."""
    prior, decoder, upsampler = parts["prior"], parts["decoder"], parts["upsampler_256"]
    if prior.config.text != prior.config.embed or decoder.config.pooled != decoder.config.text:
        raise UnclipError("diffusers' UnCLIPPipeline takes the encoded caption as wide as z_i; this one is not")
    c = both.config
    config = {"architectures": ["CLIPTextModelWithProjection"], **text_config(c)}
    write(folder / "text_encoder", config, theirs(both.text, hf_clip.HF_TEXT), dtype, WEIGHTS)
    if both.image is not None:
        config = {"architectures": ["CLIPVisionModelWithProjection"], **image_config(c)}
        write(folder / "image_encoder", config, theirs(both.image, hf_clip.HF_IMAGE), dtype, WEIGHTS)
    write(folder / "prior", prior_config(prior), theirs(prior, diffusers.PRIOR), dtype)
    tensors = theirs(decoder, diffusers.KARLO_DECODER)
    write(folder / "decoder", decoder_config(decoder), within(tensors, "decoder"), dtype)
    write(folder / "text_proj", project_config(decoder), within(tensors, "text_proj"), dtype)
    tensors = theirs(upsampler, diffusers.KARLO_UPSAMPLER)
    for name in ("super_res_first", "super_res_last"):
        write(folder / name, upsampler_config(upsampler), within(tensors, name), dtype)
    walks = dict(schedulers(prior))
    for name, config in walks.items():
        with writing(folder / name):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / "scheduler_config.json", config)
    tokenizer(folder / "tokenizer", bpe, c.context)
    classes = {"prior": "PriorTransformer", "decoder": "UNet2DConditionModel", "super_res_first": "UNet2DModel",
               "super_res_last": "UNet2DModel", **dict.fromkeys(walks, "UnCLIPScheduler")}  # fmt: skip
    write_json(folder / INDEX, {
        "_class_name": "UnCLIPPipeline", **{name: ["diffusers", kind] for name, kind in classes.items()},
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_proj": ["diffusers.pipelines.deprecated.unclip.text_proj", "UnCLIPTextProjModel"],  # where 0.34 moved it
    })  # fmt: skip
    return folder
