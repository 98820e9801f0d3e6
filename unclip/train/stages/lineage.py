"""DALL·E 2's ancestors as the loop sees them. A recipe's dataclass stands above what it trains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.data.images import Batch, Corpus
from unclip.lineage.adm import ADMSystem, Classifier, ClassifierConfig
from unclip.lineage.autoencoder import AE, MAE, AEConfig, AutoencoderSystem, DenoisingSystem, MAEConfig, MaskedSystem
from unclip.lineage.dalle1 import DALLE, DVAE, DALLEConfig, DALLESystem, DVAEConfig
from unclip.lineage.ddpm import DDPMSystem, Diffusion, DiffusionConfig, ImprovedSystem
from unclip.lineage.gan import GAN, GANConfig, GANSystem
from unclip.lineage.glide import GLIDE, GLIDEConfig, GLIDESystem, NoisedCLIP, NoisedCLIPConfig
from unclip.lineage.image_gpt import ImageGPTSystem, PixelGPT, PixelGPTConfig
from unclip.lineage.palette import shrink
from unclip.lineage.pixelcnn import PixelCNN, PixelCNNConfig, Pixels, PixelsConfig, PixelsSystem
from unclip.lineage.reader import reader
from unclip.lineage.system import System, load_part
from unclip.lineage.vae import VAE, VAEConfig, VAESystem
from unclip.lineage.vqvae import VQVAE, VQVAE2, VQVAE2Config, VQVAE2System, VQVAEConfig, VQVAESystem
from unclip.pictures import grid
from unclip.train.recipe import DataConfig, Recipe, Stage
from unclip.train.stages.encoders import held_out

PLAIN = DataConfig(coloured=0.0)


@lru_cache(1)
def corpus(data: Path, c: DataConfig) -> Corpus:
    """Read once for the many stages of a lineage."""
    return Corpus.load(data, c.size, "train", c.core, c.limit, c.crop)


@lru_cache(1)
def unseen(data: Path, c: DataConfig) -> tuple[Tensor, list[str]]:
    """Eight held-out pictures and their captions, for previews."""
    return held_out(Recipe("", None, data=c), data, "val", 8)[:2]


class PictureStage(Stage):
    """A network with a `loss(pictures, g)`. `system` makes of it what can be looked at."""

    def __init__(self, recipe: Recipe, data: Path, device: torch.device, net: nn.Module, system: Callable[..., System]):
        super().__init__(recipe, data, device)
        self.net, self.system = net.to(device), system
        pictures, self.lines = unseen(data, recipe.data)
        self.real = self.fit(pictures.to(device))

    def load(self, data: Path) -> Corpus:
        return corpus(data, self.recipe.data)

    @property
    def size(self) -> int:
        return self.recipe.model.size

    def fit(self, pictures: Tensor) -> Tensor:
        return shrink(pictures, self.size)

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        return self.net.loss(self.fit(batch.pictures), g)  # type: ignore[operator]

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[Image.Image, dict[str, float]]:
        """Rows: unseen pictures, what is left of them, and drawn ones, as far as the system can."""
        system = self.system(**{self.recipe.name: net})
        again = system.reconstruct(self.real)
        rows, measures = [self.real], {}
        if again is not None:
            rows, measures["mse"] = [*rows, again], (again - self.real).square().mean().item()
        measures |= system.numbers(self.real)
        if system.whole and system.draws:
            rows.append(system.sample(self.lines, range(len(self.lines))))
        return grid(torch.cat(rows), columns=len(self.real)), measures


@dataclass(frozen=True)
class AERecipe(Recipe):
    """AE, and with noise DAE."""

    model: AEConfig = field(default_factory=AEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        system = DenoisingSystem if self.model.noise else AutoencoderSystem
        return PictureStage(self, data, device, AE(self.model), system)


@dataclass(frozen=True)
class MAERecipe(Recipe):
    model: MAEConfig = field(default_factory=MAEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PictureStage(self, data, device, MAE(self.model), MaskedSystem)


@dataclass(frozen=True)
class VAERecipe(Recipe):
    model: VAEConfig = field(default_factory=VAEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PictureStage(self, data, device, VAE(self.model), VAESystem)


@dataclass(frozen=True)
class PixelGPTRecipe(Recipe):
    model: PixelGPTConfig = field(default_factory=PixelGPTConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PaletteStage(self, data, device, PixelGPT(self.model), ImageGPTSystem)


@dataclass(frozen=True)
class PixelsRecipe(Recipe):
    model: PixelsConfig = field(default_factory=PixelsConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PaletteStage(self, data, device, Pixels(self.model), PixelsSystem)


class PaletteStage(PictureStage):
    """Finds the palette first, in pictures of the corpus: the same ones every time."""

    def __init__(self, recipe: Recipe, data: Path, device: torch.device, net: nn.Module, system: Callable[..., System]):
        super().__init__(recipe, data, device, net, system)
        some = self.corpus.draw(0, 256, recipe.train.seed).pictures
        self.net.palette.fit(self.fit(some).cpu(), torch.Generator().manual_seed(0))  # type: ignore[operator,union-attr]
        self.real = self.net.palette.quantised(self.real)  # type: ignore[operator,union-attr]


@dataclass(frozen=True)
class VQVAERecipe(Recipe):
    model: VQVAEConfig = field(default_factory=VQVAEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PictureStage(self, data, device, VQVAE(self.model), VQVAESystem)


@dataclass(frozen=True)
class VQVAE2Recipe(Recipe):
    model: VQVAE2Config = field(default_factory=VQVAE2Config)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PictureStage(self, data, device, VQVAE2(self.model), VQVAE2System)


@dataclass(frozen=True)
class CodesRecipe(Recipe):
    """A PixelCNN over the codes of VQ-VAE."""

    model: PixelCNNConfig = field(default_factory=PixelCNNConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return CodesStage(self, data, model, device)


class CodesStage(PictureStage):
    def __init__(self, recipe: Recipe, data: Path, model: Path, device: torch.device):
        self.first = load_part(model, "vqvae", VQVAEConfig, VQVAE).to(device)
        super().__init__(recipe, data, device, PixelCNN(recipe.model),
                         lambda vqvae_prior: VQVAESystem(vqvae=self.first, vqvae_prior=vqvae_prior))  # fmt: skip

    @property
    def size(self) -> int:
        return self.first.config.size

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        with torch.no_grad():
            codes = self.first.encode(self.fit(batch.pictures))
        return self.net.loss(codes)  # type: ignore[operator]


@dataclass(frozen=True)
class TwoLevelRecipe(Recipe):
    """A PixelCNN over one level of VQ-VAE-2's codes: the bottom when the model is given the top's, else the top."""

    model: PixelCNNConfig = field(default_factory=PixelCNNConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return TwoLevelStage(self, data, model, device)


class TwoLevelStage(PictureStage):
    def __init__(self, recipe: Recipe, data: Path, model: Path, device: torch.device):
        known = {"vqvae2": load_part(model, "vqvae2", VQVAE2Config, VQVAE2).to(device)}
        self.first = known["vqvae2"]
        if recipe.model.given:
            known["vqvae2_top"] = load_part(model, "vqvae2_top", PixelCNNConfig, PixelCNN).to(device)
        super().__init__(recipe, data, device, PixelCNN(recipe.model), lambda **new: VQVAE2System(**known, **new))

    @property
    def size(self) -> int:
        return self.first.config.size

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        with torch.no_grad():
            top, bottom = self.first.encode(self.fit(batch.pictures))
        return self.net.loss(bottom, top) if self.recipe.model.given else self.net.loss(top)  # type: ignore[operator]


@dataclass(frozen=True)
class DVAERecipe(Recipe):
    model: DVAEConfig = field(default_factory=DVAEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return PictureStage(self, data, device, DVAE(self.model), DALLESystem)


@dataclass(frozen=True)
class DALLERecipe(Recipe):
    model: DALLEConfig = field(default_factory=DALLEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return DALLEStage(self, data, model, device)


class DALLEStage(PictureStage):
    def __init__(self, recipe: Recipe, data: Path, model: Path, device: torch.device):
        self.first = load_part(model, "dvae", DVAEConfig, DVAE).to(device)
        super().__init__(recipe, data, device, DALLE(recipe.model),
                         lambda dalle1: DALLESystem(dvae=self.first, dalle1=dalle1))  # fmt: skip

    @property
    def size(self) -> int:
        return self.first.config.size

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = reader(self.device).ids(batch.captions, self.recipe.model.context)
        with torch.no_grad():
            codes = self.first.encode(self.fit(batch.pictures)).flatten(1)
        return self.net.loss(ids, codes)  # type: ignore[operator]


@dataclass(frozen=True)
class GANRecipe(Recipe):
    model: GANConfig = field(default_factory=GANConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return GANStage(self, data, device, GAN(self.model), GANSystem)


class EmbeddedStage(PictureStage):
    """A network with a `loss(pictures, z_t, g)`."""

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        return self.net.loss(self.fit(batch.pictures), reader(self.device).z_t(batch.captions), g)  # type: ignore[operator]


class GANStage(EmbeddedStage):
    def optimiser(self) -> torch.optim.Optimizer:
        """Without momentum: what the other player did a while ago is no guide (R3GAN, appendix)."""
        stepper = super().optimiser()
        for group in stepper.param_groups:
            group["betas"] = (0.0, group["betas"][1])
        return stepper


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """DDPM, improved DDPM or ADM, by its name."""

    model: DiffusionConfig = field(default_factory=DiffusionConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        system = {"ddpm": DDPMSystem, "iddpm": ImprovedSystem}.get(self.name, ADMSystem)
        return PictureStage(self, data, device, Diffusion(self.model), system)


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    model: ClassifierConfig = field(default_factory=ClassifierConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        known = load_part(model, "adm", DiffusionConfig, Diffusion).to(device)
        system = lambda adm_classifier: ADMSystem(adm=known, adm_classifier=adm_classifier)  # noqa: E731
        return ClassifierStage(self, data, device, Classifier(self.model), system)


class ClassifierStage(PictureStage):
    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        styles = [self.corpus.meta[i].get("style", "") for i in batch.index.tolist()]
        return self.net.loss(self.fit(batch.pictures), self.net.labels(styles), g)  # type: ignore[operator]


@dataclass(frozen=True)
class GLIDERecipe(Recipe):
    model: GLIDEConfig = field(default_factory=GLIDEConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        return GLIDEStage(self, data, device, GLIDE(self.model), GLIDESystem)


class GLIDEStage(PictureStage):
    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = reader(self.device).ids(batch.captions, self.recipe.model.decoder.context)
        return self.net.loss(self.fit(batch.pictures), ids, g)  # type: ignore[operator]


@dataclass(frozen=True)
class NoisedCLIPRecipe(Recipe):
    model: NoisedCLIPConfig = field(default_factory=NoisedCLIPConfig)

    def stage(self, data: Path, model: Path, device: torch.device) -> Stage:
        known = load_part(model, "glide", GLIDEConfig, GLIDE).to(device)
        system = lambda glide_clip: GLIDESystem(glide=known, glide_clip=glide_clip)  # noqa: E731
        return EmbeddedStage(self, data, device, NoisedCLIP(self.model), system)
