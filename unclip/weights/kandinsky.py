"""Kandinsky 2.1's decoder, and the same tuned to inpaint, as they were first published (Razzhigaev et al. 2023)."""

from dataclasses import replace

from unclip.diffusion.process import Process
from unclip.models.encoded_decoder import EncodedDecoder, EncodedDecoderConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import adm_unet
from unclip.weights.adm_unet import both
from unclip.weights.family import Family, Names, Schema

LATENT = Process("linear", variance="learned", rescale=True, betas=(0.00085, 0.012))
DECODER = EncodedDecoderConfig(
    64, 4, 768, 768, 1024, 10, ("text_emb",), null=False, diffusion=LATENT,
    unet=UNetConfig(in_channels=4, out_channels=8, channels=(384, 768, 1152, 1536), depth=3, attention=(1, 2, 3),
                    head=64, context=768),
)  # fmt: skip
INPAINT = replace(DECODER, unet=replace(DECODER.unet, layout=5))


def config(found: Schema) -> EncodedDecoderConfig:
    unet = adm_unet.config(found)
    channels = unet.out_channels // 2
    unet = replace(unet, in_channels=channels, layout=unet.in_channels - channels)
    tokens = found.size("clip_to_seq.weight") // found.size("to_model_dim_n.weight")
    return replace(DECODER, size=4 << len(unet.channels), channels=channels, embed=found.size("img_layer.weight", 1),
                   pooled=found.size("proj_n.weight", 1), text=found.size("to_model_dim_n.weight", 1),
                   image_tokens=tokens, unet=unet)  # fmt: skip


def names(c: EncodedDecoderConfig) -> Names:
    names = adm_unet.unet(c.unet)
    for a, b in {"z_emb.0": "img_layer", "text_emb.0": "proj_n", "text_emb.1": "ln_model_n", "text.0": "to_model_dim_n",
                 "z_tokens.0": "clip_to_seq"}.items():  # fmt: skip
        names |= both(a, b)
    return names


KANDINSKY_21 = Family(
    "Kandinsky 2.1", "decoder",
    ("clip_to_seq.weight", "to_model_dim_n.weight", "ln_model_n.weight", "img_layer.weight", "input_blocks.0.0.weight",
     "middle_block.1.encoder_kv.weight"),
    config, EncodedDecoder, names, published={"decoder": DECODER, "inpainting": INPAINT}, licence="Apache-2.0",
)  # fmt: skip
