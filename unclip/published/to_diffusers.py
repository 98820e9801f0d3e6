"""Whole systems written as pipelines of diffusers, where it has one that is equal: the readers' names, taken back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unclip.errors import UnclipError
from unclip.weights import diffusers, multilingual, stable_unclip, vqgan
from unclip.weights import to_diffusers as to
from unclip.weights.scheduler import Scheduler
from unclip.weights.to_diffusers import Pipeline, theirs, within

if TYPE_CHECKING:
    from unclip.published.kandinsky import Kandinsky, Words
    from unclip.published.karlo import Karlo
    from unclip.published.stable_unclip import StableUnCLIP

PROJECT = "diffusers.pipelines.deprecated.unclip.text_proj"  # where 0.34 moved it
SIGHT = ("image_encoder", "feature_extractor")  # which pipelines that draw captions do not know
UNCLIP = {"_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000}


def of_prior(reach: float) -> dict[str, Any]:
    """The published way to sample a prior."""
    return UNCLIP | {"prediction_type": "sample", "clip_sample_range": reach}


def karlo(system: "Karlo", folder: Path, dtype: torch.dtype) -> Path:
    """UnCLIPPipeline, and CLIP's picture tower beside it, which image variations ask for; without a prior
    UnCLIPImageVariationPipeline."""
    prior, decoder, upsampler, both = system.prior, system.decoder, system.upsampler, system.clip
    width = decoder.config.text if prior is None else prior.config.text
    if width != decoder.config.embed or decoder.config.pooled != width:
        raise UnclipError("diffusers' UnCLIPPipeline takes the encoded caption as wide as z_i; this one is not")
    out = Pipeline(folder, dtype)
    to.text(out, "text_encoder", both.text)
    out.tokenizer("tokenizer", system.tokenizer, both.config.context)
    if prior is not None:
        out.network("prior", "PriorTransformer", to.prior_config(prior.config), theirs(prior, diffusers.PRIOR))
        out.scheduler("prior_scheduler", of_prior(prior.config.reach))
    c, tensors = decoder.config, theirs(decoder, diffusers.KARLO_DECODER)
    told = to.told_config(c.unet, c.size) | {"class_embed_type": "identity"}
    out.network("decoder", "UNet2DConditionModel", told, within(tensors, "decoder"))
    out.network("text_proj", "UnCLIPTextProjModel", to.project_config(c), within(tensors, "text_proj"), PROJECT)
    out.scheduler("decoder_scheduler", UNCLIP | {"variance_type": "learned_range"})
    u, tensors = upsampler.config, theirs(upsampler, diffusers.KARLO_UPSAMPLER)
    for name in ("super_res_first", "super_res_last"):
        told = to.unet_config(u.unet, u.size) | {"add_attention": False}
        out.network(name, "UNet2DModel", told, within(tensors, name))
    out.scheduler("super_res_scheduler", UNCLIP)
    if both.image is not None:
        to.image(out, "image_encoder", both.image, both.config)
        out.processor("feature_extractor", both.config)
    return out.close("UnCLIPImageVariationPipeline") if prior is None else out.close("UnCLIPPipeline", SIGHT)


def kandinsky(system: "Kandinsky", folder: Path, dtype: torch.dtype) -> Path:
    """A combined pipeline, prior and decoder in one folder: of 2.1 or 2.2, to draw or to fill in."""
    c, movq, both = system.decoder.config, system.movq.config, system.clip
    unet = to.kandinsky_config(c)
    out = Pipeline(folder, dtype)
    out.network("unet", "UNet2DConditionModel", unet, theirs(system.decoder, diffusers.KANDINSKY))
    out.network("movq", "VQModel", to.autoencoder_config(movq), theirs(system.movq, vqgan.MOVQ_22))
    out.scheduler("scheduler", system.scheduler.said)
    if system.words is not None:
        words(out, system.words)
    out.network("prior_prior", "PriorTransformer", to.prior_config(system.prior.config),
                theirs(system.prior, diffusers.PRIOR))  # fmt: skip
    out.scheduler("prior_scheduler", of_prior(system.prior.config.reach))
    to.text(out, "prior_text_encoder", both.text)
    to.image(out, "prior_image_encoder", both.image, both.config)
    out.processor("prior_image_processor", both.config)
    out.tokenizer("prior_tokenizer", system.tokenizer, both.config.context)
    return out.close(f"Kandinsky{'' if system.words else 'V22'}{'Inpaint' if c.unet.layout else ''}CombinedPipeline")


def words(out: Pipeline, read: "Words") -> None:
    """XLM-R: with the layer behind it through which no caption passes, of zeros, for transformers looks for it."""
    width = read.net.config.text.width
    behind = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}
    tensors: dict[str, Tensor] = {f"transformer.pooler.dense.{p}": w for p, w in behind.items()}
    tensors |= theirs(read.net, multilingual.MULTILINGUAL_CLIP)
    out.encoder("text_encoder", "MultilingualCLIP", to.words_config(read.net.config), tensors, "kandinsky")
    special = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
               "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip
    out.say("tokenizer", "tokenizer_config.json", {**special, "tokenizer_class": "XLMRobertaTokenizer"})
    read.tokenizer.save(out.folder / "tokenizer" / "tokenizer.json")
    out.index["tokenizer"] = ["transformers", "XLMRobertaTokenizerFast"]


def stable(system: "StableUnCLIP", folder: Path, dtype: torch.dtype) -> Path:
    """StableUnCLIPPipeline where there is a prior, else the one that varies pictures; what else there is, beside."""
    noiser, both, tokenizer = system.noiser, system.clip, system.caption_tokenizer
    out = Pipeline(folder, dtype)
    out.network("unet", "UNet2DConditionModel", to.noised_config(system.decoder.config),
                theirs(system.decoder, stable_unclip.STABLE_UNCLIP))  # fmt: skip
    out.network("vae", "AutoencoderKL", to.autoencoder_config(system.autoencoder.config),
                theirs(system.autoencoder, vqgan.AUTOENCODER_KL))  # fmt: skip
    out.scheduler("scheduler", system.scheduler.said)
    out.network("image_normalizer", "StableUnCLIPImageNormalizer", {"embedding_dim": noiser.config.embed},
                theirs(noiser, stable_unclip.NOISER), "stable_diffusion")  # fmt: skip
    p = noiser.config.diffusion
    noising = Scheduler("ddpm", p.schedule, p.T, betas=p.betas, variance="fixed_small")
    out.scheduler("image_noising_scheduler", noising.said)
    to.text(out, "text_encoder", system.caption)
    pad = str(tokenizer.bpe.id_to_token(tokenizer.pad))  # which the decoder sees
    out.tokenizer("tokenizer", tokenizer, system.caption.config.context, pad)
    if both.image is not None:
        to.image(out, "image_encoder", both.image, both.config)
        out.processor("feature_extractor", both.config)
    if system.prior is None:
        return out.close("StableUnCLIPImg2ImgPipeline")
    prior = system.prior.config
    out.network("prior", "PriorTransformer", to.prior_config(prior), theirs(system.prior, diffusers.PRIOR))
    walk = system.prior_scheduler.said if system.prior_scheduler else of_prior(prior.reach)
    out.scheduler("prior_scheduler", walk)
    to.text(out, "prior_text_encoder", both.text)
    out.tokenizer("prior_tokenizer", system.tokenizer, both.config.context)
    return out.close("StableUnCLIPPipeline", SIGHT)
