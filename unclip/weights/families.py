"""Every family that can be read. Where two look alike, the first is meant unless another is named."""

from unclip.weights import diffusers
from unclip.weights.adm import CLASSIFIER, GUIDED_DIFFUSION, IMPROVED_DIFFUSION, NEW_GUIDED_DIFFUSION
from unclip.weights.dvae import DVAE_DECODER, DVAE_ENCODER
from unclip.weights.glide import GLIDE
from unclip.weights.hf_clip import HF_CLIP, HF_IMAGE, HF_TEXT, HF_TEXT_BARE, HF_TEXT_SHORT
from unclip.weights.image_gpt import IMAGE_GPT
from unclip.weights.kandinsky import KANDINSKY_21
from unclip.weights.karlo import KARLO_DECODER, KARLO_PRIOR, KARLO_SR
from unclip.weights.multilingual import MULTILINGUAL_CLIP, SENTENCES
from unclip.weights.noised_clip import GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT
from unclip.weights.openai_clip import OPEN_CLIP, OPENAI_CLIP
from unclip.weights.stable_unclip import NOISER, STABLE_UNCLIP
from unclip.weights.vqgan import AUTOENCODER_KL, AUTOENCODER_KL_OLD, MOVQ_21, MOVQ_22, VQGAN_F16

FAMILIES = (
    OPENAI_CLIP, OPEN_CLIP, HF_CLIP, HF_TEXT, HF_TEXT_BARE, HF_TEXT_SHORT, HF_IMAGE,
    GLIDE_CLIP_IMAGE, GLIDE_CLIP_TEXT, MULTILINGUAL_CLIP, SENTENCES,
    DVAE_ENCODER, DVAE_DECODER, VQGAN_F16, MOVQ_21, MOVQ_22, AUTOENCODER_KL, AUTOENCODER_KL_OLD,
    IMAGE_GPT,
    KARLO_PRIOR, KARLO_DECODER, KARLO_SR, KANDINSKY_21, GLIDE,
    diffusers.PRIOR, diffusers.KARLO_DECODER, diffusers.KARLO_UPSAMPLER, diffusers.KANDINSKY, diffusers.KARLO_HALF,
    STABLE_UNCLIP, NOISER,
    IMPROVED_DIFFUSION, GUIDED_DIFFUSION, NEW_GUIDED_DIFFUSION, CLASSIFIER,
)  # fmt: skip
