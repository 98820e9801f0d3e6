"""`lineage`: DALL·E 2's ancestors, each sized to say something after minutes on one CPU core.

Pictures are 64 px; where every pixel costs a step (PixelCNN) and for the plain diffusion models they are 32 px, and
16 px where it costs a token that looks at all others (Image-GPT).
"""

from collections.abc import Callable
from dataclasses import replace

from unclip.data.sources import SOURCES
from unclip.diffusion.process import Process
from unclip.lineage.adm import ADMSystem, ClassifierConfig, NoisedConfig
from unclip.lineage.autoencoder import AEConfig, AutoencoderSystem, DenoisingSystem, MaskedSystem
from unclip.lineage.dalle1 import DALLESystem
from unclip.lineage.ddpm import DDPMSystem, ImprovedSystem
from unclip.lineage.gan import GANSystem
from unclip.lineage.glide import GLIDESystem
from unclip.lineage.image_gpt import ImageGPTSystem, PixelGPTConfig
from unclip.lineage.pixelcnn import PixelCNNConfig, PixelsSystem
from unclip.lineage.system import System
from unclip.lineage.vae import VAESystem
from unclip.lineage.vqvae import VQVAE2System, VQVAESystem
from unclip.train.recipe import Recipe, TrainConfig
from unclip.train.stages import lineage as s

QUIET = TrainConfig(warmup=20, save_every=100_000, sample_every=100_000, log_every=50)  # at the end: runs are short
# Noise is told pixel by pixel, by a narrow network: of patches a wide one in the same time tells it half as well.
# Twice this rate is faster in a minute, and lets DDPM diverge in ten.
DIFFUSION = replace(QUIET, steps=6000, batch=8, lr=2e-3, decay=0.5)


def ae() -> s.AERecipe:
    return s.AERecipe("ae", train=replace(QUIET, steps=3000, batch=32, lr=1e-3), data=s.PLAIN)


def dae() -> s.AERecipe:
    return s.AERecipe("dae", AEConfig(noise=0.5), replace(QUIET, steps=3000, batch=32, lr=1e-3), s.PLAIN)


def mae() -> s.MAERecipe:
    return s.MAERecipe("mae", train=replace(QUIET, steps=3000, batch=32, lr=1e-3, weight_decay=0.05), data=s.PLAIN)


def vae() -> s.VAERecipe:
    return s.VAERecipe("vae", train=replace(QUIET, steps=3000, batch=32, lr=1e-3), data=s.PLAIN)


def pixelcnn() -> s.PixelsRecipe:
    return s.PixelsRecipe("pixelcnn", train=replace(QUIET, steps=2000, batch=16, lr=1e-3), data=s.PLAIN)


def vqvae() -> s.VQVAERecipe:
    return s.VQVAERecipe("vqvae", train=replace(QUIET, steps=2000, batch=16, lr=1e-3), data=s.PLAIN)


def vqvae_prior() -> s.CodesRecipe:
    return s.CodesRecipe("vqvae_prior", train=replace(QUIET, steps=2000, batch=16, lr=1e-3), data=s.PLAIN)


def vqvae2() -> s.VQVAE2Recipe:
    return s.VQVAE2Recipe("vqvae2", train=replace(QUIET, steps=2000, batch=16, lr=1e-3), data=s.PLAIN)


def vqvae2_top() -> s.TwoLevelRecipe:
    return s.TwoLevelRecipe("vqvae2_top", PixelCNNConfig(8), replace(QUIET, steps=2000, batch=16, lr=1e-3), s.PLAIN)


def vqvae2_bottom() -> s.TwoLevelRecipe:
    return s.TwoLevelRecipe(
        "vqvae2_bottom", PixelCNNConfig(16, depth=5, given=512), replace(QUIET, steps=2000, batch=16, lr=1e-3), s.PLAIN
    )


def dvae() -> s.DVAERecipe:
    return s.DVAERecipe("dvae", train=replace(QUIET, steps=2000, batch=16, lr=3e-3), data=s.PLAIN)


def dalle1() -> s.DALLERecipe:
    return s.DALLERecipe("dalle1", train=replace(QUIET, steps=2000, batch=16, lr=1e-3, weight_decay=0.05), data=s.PLAIN)


def image_gpt() -> s.PixelGPTRecipe:
    """At 16 px: a pixel is a token, and attention to 1,024 of them would leave a hundred steps to ten minutes."""
    return s.PixelGPTRecipe("image_gpt", PixelGPTConfig(16), replace(QUIET, steps=2000, batch=16, lr=2e-3), s.PLAIN)


def gan() -> s.GANRecipe:
    """Its two players need a rate that stays, and gradients of their own size."""
    settings = replace(QUIET, steps=4000, batch=16, lr=4e-4, beta2=0.98, weight_decay=0.0, ema=0.995, clip=1e3)
    return s.GANRecipe("gan", train=settings, data=s.PLAIN)


def ddpm() -> s.DiffusionRecipe:
    return s.DiffusionRecipe("ddpm", train=DIFFUSION, data=s.PLAIN)


def iddpm() -> s.DiffusionRecipe:
    model = ddpm().model
    return s.DiffusionRecipe(
        "iddpm",
        replace(model, importance=True, unet=replace(model.unet, out_channels=6),
                diffusion=Process("cosine", predicts="v", variance="learned", simple=True)),
        DIFFUSION, s.PLAIN,
    )  # fmt: skip


def adm() -> s.DiffusionRecipe:
    """iDDPM with attention on two grids, more heads, and scale and shift by the time (ADM, section 3)."""
    model = iddpm().model
    unet = replace(model.unet, attention=(1, 2), head=32, scale_shift=True)
    return s.DiffusionRecipe("adm", replace(model, importance=False, unet=unet), DIFFUSION, s.PLAIN)


def adm_classifier() -> s.ClassifierRecipe:
    names = tuple(dict.fromkeys(source.style for source in SOURCES))
    model = ClassifierConfig(names, NoisedConfig(out=len(names)))
    return s.ClassifierRecipe("adm_classifier", model, replace(QUIET, steps=2000, batch=64, lr=1e-3), s.PLAIN)


def glide() -> s.GLIDERecipe:
    return s.GLIDERecipe("glide", train=replace(QUIET, steps=6000, batch=8, lr=2e-3, ema=0.995), data=s.PLAIN)


def glide_clip() -> s.NoisedCLIPRecipe:
    return s.NoisedCLIPRecipe("glide_clip", train=replace(QUIET, steps=2000, batch=64, lr=1e-3, weight_decay=0.1),
                              data=s.PLAIN)  # fmt: skip


stages = (ae, dae, mae, vae, pixelcnn, vqvae, vqvae_prior, vqvae2, vqvae2_top, vqvae2_bottom, dvae, dalle1, image_gpt,
          gan, ddpm, iddpm, adm, adm_classifier, glide, glide_clip)  # fmt: skip

# A system, and the stages that make it, in order, each with its share of the time.
SYSTEMS: dict[str, tuple[type[System], dict[Callable[[], Recipe], float]]] = {
    "ae": (AutoencoderSystem, {ae: 1.0}),
    "dae": (DenoisingSystem, {dae: 1.0}),
    "mae": (MaskedSystem, {mae: 1.0}),
    "vae": (VAESystem, {vae: 1.0}),
    "pixelcnn": (PixelsSystem, {pixelcnn: 1.0}),
    "vqvae": (VQVAESystem, {vqvae: 0.4, vqvae_prior: 0.6}),
    "vqvae2": (VQVAE2System, {vqvae2: 0.4, vqvae2_top: 0.2, vqvae2_bottom: 0.4}),
    "dalle1": (DALLESystem, {dvae: 0.4, dalle1: 0.6}),
    "image_gpt": (ImageGPTSystem, {image_gpt: 1.0}),
    "gan": (GANSystem, {gan: 1.0}),
    "ddpm": (DDPMSystem, {ddpm: 1.0}),
    "iddpm": (ImprovedSystem, {iddpm: 1.0}),
    "adm": (ADMSystem, {adm: 0.8, adm_classifier: 0.2}),
    "glide": (GLIDESystem, {glide: 0.85, glide_clip: 0.15}),
}
