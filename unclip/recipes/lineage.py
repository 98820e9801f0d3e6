"""`lineage`: DALL·E 2's ancestors, each sized to say something after ten minutes on one CPU core.

Pictures are 64 px; where every pixel costs a step or a token (PixelCNN, Image-GPT) and for the plain diffusion models
they are 32 px.
"""

from collections.abc import Callable

from unclip.lineage.autoencoder import AEConfig, AutoencoderSystem, DenoisingSystem, MaskedSystem
from unclip.lineage.pixelcnn import PixelCNNConfig, PixelsSystem
from unclip.lineage.system import System
from unclip.lineage.vae import VAESystem
from unclip.lineage.vqvae import VQVAE2System, VQVAESystem
from unclip.train.recipe import Recipe, TrainConfig
from unclip.train.stages import lineage as s

QUIET = {"save_every": 100_000, "sample_every": 100_000, "log_every": 50}  # only at the end: runs are short


def ae() -> s.AERecipe:
    return s.AERecipe("ae", train=TrainConfig(3000, 32, lr=1e-3, **QUIET), data=s.PLAIN)


def dae() -> s.AERecipe:
    return s.AERecipe("dae", AEConfig(noise=0.5), TrainConfig(3000, 32, lr=1e-3, **QUIET), s.PLAIN)


def mae() -> s.MAERecipe:
    return s.MAERecipe("mae", train=TrainConfig(3000, 64, lr=1e-3, weight_decay=0.05, **QUIET), data=s.PLAIN)


def vae() -> s.VAERecipe:
    return s.VAERecipe("vae", train=TrainConfig(3000, 32, lr=1e-3, **QUIET), data=s.PLAIN)


def pixelcnn() -> s.PixelsRecipe:
    return s.PixelsRecipe("pixelcnn", train=TrainConfig(2000, 16, lr=1e-3, **QUIET), data=s.PLAIN)


def vqvae() -> s.VQVAERecipe:
    return s.VQVAERecipe("vqvae", train=TrainConfig(2000, 32, lr=1e-3, **QUIET), data=s.PLAIN)


def vqvae_prior() -> s.CodesRecipe:
    return s.CodesRecipe("vqvae_prior", train=TrainConfig(2000, 32, lr=1e-3, **QUIET), data=s.PLAIN)


def vqvae2() -> s.VQVAE2Recipe:
    return s.VQVAE2Recipe("vqvae2", train=TrainConfig(2000, 32, lr=1e-3, **QUIET), data=s.PLAIN)


def vqvae2_top() -> s.TwoLevelRecipe:
    return s.TwoLevelRecipe("vqvae2_top", PixelCNNConfig(8), TrainConfig(2000, 32, lr=1e-3, **QUIET), s.PLAIN)


def vqvae2_bottom() -> s.TwoLevelRecipe:
    return s.TwoLevelRecipe(
        "vqvae2_bottom", PixelCNNConfig(16, depth=5, given=512), TrainConfig(2000, 32, lr=1e-3, **QUIET), s.PLAIN
    )


stages = (ae, dae, mae, vae, pixelcnn, vqvae, vqvae_prior, vqvae2, vqvae2_top, vqvae2_bottom)

# A system, and the stages that make it, in order, each with its share of the time.
SYSTEMS: dict[str, tuple[type[System], dict[Callable[[], Recipe], float]]] = {
    "ae": (AutoencoderSystem, {ae: 1.0}),
    "dae": (DenoisingSystem, {dae: 1.0}),
    "mae": (MaskedSystem, {mae: 1.0}),
    "vae": (VAESystem, {vae: 1.0}),
    "pixelcnn": (PixelsSystem, {pixelcnn: 1.0}),
    "vqvae": (VQVAESystem, {vqvae: 0.4, vqvae_prior: 0.6}),
    "vqvae2": (VQVAE2System, {vqvae2: 0.4, vqvae2_top: 0.2, vqvae2_bottom: 0.4}),
}
