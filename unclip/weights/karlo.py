"""Karlo v1 alpha as Kakao Brain published it: prior, decoder, and the upsampler whose last step is a network of its own
(Lee et al. 2022). Kandinsky 2.1's prior has the same names and sizes."""

from dataclasses import replace

from torch import Tensor

from unclip.diffusion.process import Process
from unclip.models.encoded_decoder import EncodedDecoder, EncodedDecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import adm_unet
from unclip.weights.adm_unet import both
from unclip.weights.family import NONE, Family, From, Names, Schema, same
from unclip.weights.glide import text_names

PRIOR = PriorConfig(768, 768, 77, TransformerConfig(2048, 20, 32), Process("cosine", predicts="x0"),
                    affine=True, null=False, reach=10.0)  # fmt: skip
DECODER = EncodedDecoderConfig(
    unet=UNetConfig(out_channels=6, channels=(320, 640, 960, 1280), depth=3, attention=(1, 2, 3), head=64,
                    context=1536),
)  # fmt: skip
UPSAMPLER = UpsamplerConfig(
    residual=False, antialias=True, last=True, diffusion=Process(),
    unet=UNetConfig(in_channels=6, channels=(320, 640, 960, 1280), depth=3, attention=(), head=64, scale_shift=False),
)  # fmt: skip


def prior_config(found: Schema, prefix: str = "model.") -> PriorConfig:
    width = found.size(f"{prefix}prd_emb", 2)
    depth = found.count(f"{prefix}transformer.resblocks.{{i}}.{{rest}}")
    return replace(PRIOR, embed=found.size(f"{prefix}clip_img_proj.weight", 1),
                   text=found.size(f"{prefix}text_enc_proj.weight", 1),
                   context=found.size(f"{prefix}positional_embedding", 1) - 4,
                   transformer=TransformerConfig(width, depth, max(1, width // 64)))  # fmt: skip


def prior_names(c: PriorConfig, prefix: str = "model.") -> Names:
    theirs = {"text": "text_enc_proj", "z_t": "text_emb_proj", "z_i": "clip_img_proj", "out": "out_proj",
              "time.0": "time_embed.0", "time.2": "time_embed.2"}  # fmt: skip
    names = text_names("transformer", f"{prefix}transformer", c.transformer, f"{prefix}final_ln")
    for a, b in theirs.items():
        names |= both(a, prefix + b)
    return names | {
        "final": same(f"{prefix}prd_emb"), "position": same(f"{prefix}positional_embedding"),
        "space.mean": NONE, "space.deviation": NONE,  # in a file of their own
    }  # fmt: skip


def side_by_side(tokens: int, theirs: str = "clip_tok_proj") -> dict[str, From]:
    """z_i's tokens: a row of theirs is a channel's value in each token, ours a token's value in each channel."""

    def there(w: Tensor) -> Tensor:
        return w.unflatten(0, (-1, tokens)).transpose(0, 1).flatten(0, 1)

    def back(w: Tensor) -> list[Tensor]:
        return [w.unflatten(0, (tokens, -1)).transpose(0, 1).flatten(0, 1)]

    return {f"z_tokens.0.{p}": From((f"{theirs}.{p}",), there, back) for p in ("weight", "bias")}


def decoder_config(found: Schema, prefix: str = "model.") -> EncodedDecoderConfig:
    unet = adm_unet.config(found, prefix)
    embed, text = found.size(f"{prefix}clip_emb.weight", 1), found.size(f"{prefix}text_seq_proj.0.weight", 1)
    tokens = found.size(f"{prefix}clip_tok_proj.weight") // max(1, unet.context or 1)
    return replace(DECODER, size=4 << len(unet.channels), embed=embed, image_tokens=tokens, text=text,
                   pooled=found.size(f"{prefix}text_feat_proj.weight", 1), unet=unet)  # fmt: skip


def decoder_names(c: EncodedDecoderConfig, prefix: str = "model.") -> Names:
    names = side_by_side(c.image_tokens) | {"null_z": same("cf_param")}
    for a, b in {"z_emb.0": "clip_emb", "text_emb.0": "text_feat_proj", "text.0": "text_seq_proj.0",
                 "text.1": "text_seq_proj.1"}.items():  # fmt: skip
        names |= both(a, b)
    return {k: way.renamed(prefix.__add__) for k, way in (adm_unet.unet(c.unet) | names).items()}


def upsampler_config(found: Schema) -> UpsamplerConfig:
    unet = adm_unet.config(found, "model_first_steps.")
    return replace(UPSAMPLER, unet=unet)


def upsampler_names(c: UpsamplerConfig) -> Names:
    return adm_unet.unet(c.unet, "unet.", "model_first_steps.") | adm_unet.unet(c.unet, "last.", "model_last_step.")


LICENCE = "CreativeML Open RAIL-M"
KARLO_PRIOR = Family(
    "Karlo and Kandinsky 2.1 prior", "prior",
    ("model.prd_emb", "model.clip_img_proj.weight", "model.text_enc_proj.weight",
     "model.transformer.resblocks.{i}.attn.c_qkv.weight"),
    prior_config, Prior, prior_names, unused=("clip_mean", "clip_std", "causal_mask", "cf_token", "cf_mask"),
    published={"1B": PRIOR}, licence=LICENCE,
)  # fmt: skip
KARLO_DECODER = Family(
    "Karlo decoder", "decoder", ("model.cf_param", "model.clip_tok_proj.weight", "model.text_seq_proj.0.weight",
                                 "model.input_blocks.0.0.weight"),
    decoder_config, EncodedDecoder, decoder_names, published={"v1 alpha": DECODER}, licence=LICENCE,
)  # fmt: skip
KARLO_SR = Family(
    "Karlo upsampler", "upsampler", ("model_first_steps.input_blocks.0.0.weight", "model_last_step.out.2.weight"),
    upsampler_config, Upsampler, upsampler_names, published={"v1 alpha": UPSAMPLER}, licence=LICENCE,
)  # fmt: skip
