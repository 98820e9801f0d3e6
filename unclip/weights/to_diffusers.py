"""Networks in the form in which diffusers and transformers keep them, so that what is loaded here can go back there."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import write_bytes, write_json, writing
from unclip.models.autoencoder_kl import AutoencoderKLConfig
from unclip.models.clip import CLIP, CLIPConfig, ImageTower, TextTower
from unclip.models.clip_resnet import AttentionResNet
from unclip.models.encoded_decoder import EncodedDecoderConfig
from unclip.models.multilingual import MultilingualConfig
from unclip.models.noised_decoder import NoisedDecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.tokenizer import CLIP_END, CLIP_START, Tokenizer
from unclip.models.vqgan import VQGANConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import hf_clip
from unclip.weights.checkpoint import CONFIG, WEIGHTS, write_tensors
from unclip.weights.family import Family, sources
from unclip.weights.hub import INDEX

DIFFUSERS = "diffusion_pytorch_model.safetensors"


def theirs(net: nn.Module, family: Family) -> dict[str, Tensor]:
    """The tensors of a network of ours under the family's names: the reader's way, taken back."""
    ours = net.state_dict()
    ways = sources(family.names(net.config), ours)
    return {name: w for key, way in ways.items() for name, w in zip(way.theirs, way.back(ours[key]), strict=True)}


class Pipeline:
    """A folder of diffusers' in the making; `close` writes what it holds, and so makes it one."""

    def __init__(self, folder: Path, dtype: torch.dtype):
        self.folder, self.dtype, self.index = folder, dtype, dict[str, list[str]]()

    def network(self, name: str, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor],
                library: str = "diffusers") -> None:  # fmt: skip
        write(self.folder / name, {"_class_name": kind, **config}, tensors, self.dtype)
        self.index[name] = [library, kind]

    def encoder(self, name: str, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor],
                library: str = "transformers") -> None:  # fmt: skip
        write(self.folder / name, {"architectures": [kind], **config}, tensors, self.dtype, WEIGHTS)
        self.index[name] = [library, kind]

    def scheduler(self, name: str, said: Mapping[str, Any]) -> None:
        self.say(name, "scheduler_config.json", said)
        self.index[name] = ["diffusers", said["_class_name"]]

    def processor(self, name: str, c: CLIPConfig) -> None:
        """What makes pictures as large as CLIP wants them."""
        side = c.image_size
        self.say(name, "preprocessor_config.json", {
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side}, "image_mean": list(c.mean), "image_std": list(c.std),
            "resample": 3, "rescale_factor": 1 / 255, "do_resize": True, "do_center_crop": True, "do_rescale": True,
            "do_normalize": True, "do_convert_rgb": True,
        })  # fmt: skip
        self.index[name] = ["transformers", "CLIPImageProcessor"]

    def tokenizer(self, name: str, bpe: Tokenizer, context: int, pad: str = CLIP_END) -> None:
        """CLIP's vocabulary and merges as transformers reads them. pad: what a caption is filled up with."""
        model = json.loads(bpe.bpe.to_str())["model"]
        pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        special = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": pad}
        self.say(name, "vocab.json", model["vocab"])
        write_bytes(self.folder / name / "merges.txt", "\n".join(["#version: 0.2", *pairs, ""]).encode())
        self.say(name, "special_tokens_map.json", special)
        self.say(name, "tokenizer_config.json", {**special, "tokenizer_class": "CLIPTokenizer",
                                                 "model_max_length": context})  # fmt: skip
        self.index[name] = ["transformers", "CLIPTokenizer"]

    def say(self, name: str, file: str, said: Mapping[str, Any]) -> None:
        with writing(self.folder / name):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / name / file, said)

    def close(self, kind: str, beside: Iterable[str] = ()) -> Path:
        """beside: what lies there, too, but is no part of that pipeline."""
        index = {name: place for name, place in self.index.items() if name not in beside}
        write_json(self.folder / INDEX, {"_class_name": kind, **index})
        return self.folder


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
            "layer_norm_eps": 1e-5, "projection_dim": c.embed or t.width}  # fmt: skip


def text_config(c: CLIPConfig) -> dict[str, Any]:
    return {**tower(c, c.text, "text"), "vocab_size": c.vocab, "max_position_embeddings": c.context,
            "bos_token_id": c.end - 1, "eos_token_id": c.end, "pad_token_id": 0}  # fmt: skip


def image_config(c: CLIPConfig) -> dict[str, Any]:
    return {**tower(c, c.image, "vision"), "image_size": c.image_size, "patch_size": c.patch}


def text(pipeline: Pipeline, name: str, net: TextTower) -> None:
    """A text tower; one without a projection under the names that transformers had before its release 5."""
    bare = not net.config.embed
    kind = "CLIPTextModel" if bare else "CLIPTextModelWithProjection"
    family = hf_clip.HF_TEXT_BARE if bare else hf_clip.HF_TEXT
    pipeline.encoder(name, kind, text_config(net.config), theirs(net, family))


def image(pipeline: Pipeline, name: str, net: ImageTower | AttentionResNet, c: CLIPConfig) -> None:
    """The picture tower of a CLIP. Raises UnclipError for one that transformers has no network for."""
    check_sight(c)
    pipeline.encoder(name, "CLIPVisionModelWithProjection", image_config(c), theirs(net, hf_clip.HF_IMAGE))


def check_sight(c: CLIPConfig) -> None:
    if c.resnet is not None or c.sketch or not c.pre_norm:
        raise UnclipError("transformers has no CLIP that sees pictures by a ResNet, by a ViT without a normalisation "
                          "before it, or with a thumbnail beside it; it has OpenAI's ViTs and open_clip's")  # fmt: skip


def clip(folder: Path, net: CLIP, dtype: torch.dtype) -> Path:
    """transformers' CLIPModel. Raises UnclipError for a CLIP that transformers has no network for."""
    c = net.config
    check_sight(c)
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": c.embed,
              "text_config": text_config(c), "vision_config": image_config(c)}  # fmt: skip
    write(folder, config, theirs(net, hf_clip.HF_CLIP), dtype, WEIGHTS)
    return folder


# ---- the networks of unCLIP --------------------------------------------------------------------------------------


def prior_config(c: PriorConfig) -> dict[str, Any]:
    t = c.transformer
    return {"num_attention_heads": t.heads, "attention_head_dim": t.width // t.heads, "num_layers": t.depth,
            "embedding_dim": c.embed, "num_embeddings": c.context, "additional_embeddings": 4}  # fmt: skip


def unet_config(c: UNetConfig, size: int) -> dict[str, Any]:
    """Of any of the U-Nets: attention with added keys, or by a Transformer's blocks around it."""
    name, plain = ("CrossAttn{}Block2D", "{}Block2D") if c.transformer else (
        "SimpleCrossAttn{}Block2D", "Resnet{}sampleBlock2D")  # fmt: skip
    down, up = ([(name if level in c.attention else plain).format(way) for level in range(len(c.channels))]
                for way in ("Down", "Up"))  # fmt: skip
    heads = c.heads or [width // c.head for width in c.channels]  # how many there are is so called with Transformers
    return {"sample_size": size, "in_channels": c.in_channels + c.layout, "out_channels": c.out_channels,
            "block_out_channels": list(c.channels), "layers_per_block": c.depth, "down_block_types": down,
            "up_block_types": up[::-1], "attention_head_dim": heads if c.transformer else c.head,
            "resnet_time_scale_shift": "scale_shift" if c.scale_shift else "default"}  # fmt: skip


def told_config(c: UNetConfig, size: int) -> dict[str, Any]:
    """Of a U-Net that is told something."""
    middle = "UNetMidBlock2DCrossAttn" if c.transformer else "UNetMidBlock2DSimpleCrossAttn"
    return {**unet_config(c, size), "cross_attention_dim": c.context, "mid_block_type": middle,
            "use_linear_projection": c.transformer}  # fmt: skip


def project_config(c: EncodedDecoderConfig) -> dict[str, Any]:
    return {"clip_extra_context_tokens": c.image_tokens, "clip_embeddings_dim": c.embed, "time_embed_dim": c.unet.emb,
            "cross_attention_dim": c.unet.context}  # fmt: skip


def kandinsky_config(c: EncodedDecoderConfig) -> dict[str, Any]:
    """Of 2.1 or 2.2. Raises UnclipError for sizes that diffusers has settled otherwise."""
    if c.hint:
        raise UnclipError("diffusers has no whole pipeline with a decoder that a picture of depths leads; it cannot be "
                          "written for diffusers")  # fmt: skip
    settled = {"tokens of z_i": (c.image_tokens, 10 if c.text else 32)}
    if c.text:
        settled |= {"numbers of z_i": (c.embed, c.unet.context), "numbers of the caption": (c.pooled, c.unet.context)}
    for what, (ours, needed) in settled.items():
        if ours != needed:
            raise UnclipError(f"its decoder takes {ours} {what}, where diffusers' takes {needed}; it cannot be written "
                              "for diffusers")  # fmt: skip
    kind, width = ("text_image", c.text) if c.text else ("image", c.embed)
    return {**told_config(c.unet, c.size), "encoder_hid_dim": width, "encoder_hid_dim_type": f"{kind}_proj",
            "addition_embed_type": kind}  # fmt: skip


def noised_config(c: NoisedDecoderConfig) -> dict[str, Any]:
    return {**told_config(c.unet, c.size), "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 2 * c.embed}  # fmt: skip


def autoencoder_config(c: VQGANConfig) -> dict[str, Any]:
    """Of MoVQ, or of Stable Diffusion's autoencoder."""
    name, levels = "{}{}coderBlock2D", range(len(c.multiples))
    down, up = ([("Attn" if level in c.attention else "") + name.format(way, side) for level in levels]
                for way, side in (("Down", "En"), ("Up", "De")))  # fmt: skip
    common = {"in_channels": 3, "out_channels": 3, "down_block_types": down, "up_block_types": up[::-1],
              "block_out_channels": [c.channels * m for m in c.multiples], "layers_per_block": c.depth,
              "latent_channels": c.latent, "norm_num_groups": c.groups}  # fmt: skip
    if isinstance(c, AutoencoderKLConfig):
        return common | {"scaling_factor": c.scale}
    return common | {"num_vq_embeddings": c.codes, "vq_embed_dim": c.embed, "norm_type": "spatial"}


def words_config(c: MultilingualConfig) -> dict[str, Any]:
    t = c.text
    return {"model_type": "M-CLIP", "transformerDimensions": t.width, "numDims": c.embed, "hidden_size": t.width,
            "intermediate_size": t.mlp or 4 * t.width, "num_hidden_layers": t.depth, "num_attention_heads": t.heads,
            "hidden_act": "gelu", "layer_norm_eps": t.eps, "vocab_size": c.vocab, "max_position_embeddings": c.context,
            "type_vocab_size": c.kinds, "pad_token_id": c.pad}  # fmt: skip
