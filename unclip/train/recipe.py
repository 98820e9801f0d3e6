"""What a recipe says, and what a stage must do."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.data import thesaurus
from unclip.data.images import Batch, Corpus
from unclip.errors import UnclipError
from unclip.nn.adapter import adapt, plain
from unclip.train.optim import optimiser
from unclip.weights import hub
from unclip.weights.adapter import Adapter
from unclip.weights.checkpoint import load_module, save_module


@dataclass(frozen=True)
class DataConfig:
    size: int = 64
    core: bool = True  # only the concepts that several styles drew
    coloured: float = 0.1  # share of pictures on a coloured ground, which the caption names
    renamed: float = 0.0  # share of captions said in other words, those of `unclip data words`
    crop: int | None = None  # keep in memory only a square of so many pixels of each picture
    limit: int | None = None  # at most so many pictures


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000
    batch: int = 32
    optimiser: Literal["adamw", "muon"] = "adamw"
    lr: float = 5e-4
    warmup: int = 200
    decay: float = 0.25  # share of the steps over which the rate falls to zero
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0  # greatest norm of the gradient
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    save_every: int = 500
    sample_every: int = 500
    log_every: int = 50


@dataclass(frozen=True)
class Recipe:
    """One stage's settings: `name` is its folder in a run; subclasses add the model's configuration."""

    name: str
    model: Any
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: int = 0  # rank of an adapter that is trained alone, the network being frozen; 0 trains everything

    def stage(self, data: Path, model: Path, device: torch.device) -> "Stage":
        raise TypeError(f"{type(self).__name__} names no stage")


class Stage:
    """What the loop needs of a stage. `model` is the run's model folder: earlier stages are read from it."""

    net: nn.Module

    def __init__(self, recipe: Recipe, data: Path, device: torch.device):
        self.recipe, self.device = recipe, device
        self.corpus = self.load(data).to(device)

    def load(self, data: Path) -> Corpus:
        c = self.recipe.data
        corpus = Corpus.load(data, c.size, "train", c.core, c.limit, c.crop)
        return replace(corpus, renamed=c.renamed, words=thesaurus.load(data)) if c.renamed else corpus

    @property
    def learner(self) -> nn.Module:
        """The network that `export` writes."""
        return self.net

    def begin(self, folder: Path) -> None:
        """Start from the part of `folder` that bears this stage's name. Raises UnclipError unless it fits in shape; how
        it was trained (dropout, the settings of diffusion) may differ."""
        source = folder / self.recipe.name
        trained, _ = load_module(source, type(self.recipe.model), type(self.learner))
        theirs, ours = (dict(net.named_parameters()) for net in (trained, self.learner))
        for name in sorted({*theirs, *ours}):
            was, now = (list(net[name].shape) if name in net else "absent" for net in (theirs, ours))
            if was != now:
                hint = f"set the recipe's model to what {str(source / 'config.json')!r} says"
                raise UnclipError(f"{str(source)!r} does not fit: {name!r} is {was}, the recipe's is {now}; {hint}")
        own = self.learner.state_dict()
        fitting = {k: v for k, v in trained.state_dict().items() if k in own and v.shape == own[k].shape}
        self.learner.load_state_dict(fitting, strict=False)  # what training measures anew is no part of it

    def adapt(self, trained: bool) -> None:
        """Freeze the network and train an adapter to it, if the recipe says so. trained: whether it was begun."""
        if self.recipe.lora and not trained:
            raise UnclipError(f"lora is {self.recipe.lora}: an adapter needs trained weights; name them: --from mini")
        if self.recipe.lora:
            adapt(self.net, self.recipe.lora)

    def optimiser(self) -> torch.optim.Optimizer:
        c = self.recipe.train
        return optimiser(self.net, c.optimiser, c.lr, c.beta2, c.eps, c.weight_decay)

    def batch(self, step: int, share: slice = slice(None)) -> Batch:
        """The given share of batch number `step`."""
        config = self.recipe.train
        return self.corpus.draw(step, config.batch, config.seed, self.recipe.data.coloured, share)

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        """The mean loss of a batch; everything random is a function of `g`, which is on the CPU."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def preview(self, net: nn.Module) -> tuple[Image.Image | None, dict[str, float]]:
        """A sheet to look at and numbers to log, from the averaged weights."""
        raise TypeError(f"{type(self).__name__} defines no preview")

    def export(self, net: nn.Module, model: Path, notes: dict[str, str]) -> None:
        """Write the averaged weights where the pipeline reads them."""
        save_module(model / self.recipe.name, self.recipe.model, plain(net), torch.float16, notes)
        hub.write_index(model, model.parent.name)

    def export_adapter(self, net: nn.Module, out: Path, notes: dict[str, str]) -> None:
        """Write what was learnt beside the frozen weights, if there is an adapter: OUT/NAME.lora.safetensors."""
        if self.recipe.lora:
            adapter = Adapter.of(net, self.recipe.name, self.recipe.lora)
            adapter.save(out / f"{self.recipe.name}.lora.safetensors", notes)
