"""ADM (Dhariwal & Nichol 2021, 2105.05233) and improved DDPM (Nichol & Dhariwal 2021, 2102.09672) as OpenAI published
them: from the number of a class to a picture, guided by a classifier, and enlarged.

A folder with the network that draws and, where wanted, its classifier and its upsampler, under any names; or the file
of the network that draws, with the others beside it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Guide, classified
from unclip.diffusion.samplers import walk
from unclip.errors import UnclipError
from unclip.models.adm import ADM as Network
from unclip.models.adm import ADMConfig, Classifier, ClassifierConfig
from unclip.pipeline import STEPS, Tell
from unclip.published.chain import Chain, Found, Kept, digest, holds, one
from unclip.settings import Generated, Request
from unclip.weights import load
from unclip.weights.adm import CLASSIFIER, GUIDED_DIFFUSION, IMPROVED_DIFFUSION

NETWORKS = (GUIDED_DIFFUSION, IMPROVED_DIFFUSION)
TIMES = 4  # that an upsampler enlarges
ANY = "any"  # the prompt that leaves the class to the seed


class ADM(Chain):
    """`UnCLIP.from_pretrained("folder").generate(label=207)`.

    The prompt is the number of a class, or "any". `guidance` is the scale of the classifier's gradient, 0 being none.
    """

    system = "adm"

    def __init__(self, network: Network, upsampler: Network | None = None, classifier: Classifier | None = None,
                 name: str = "adm", digest: str = ""):  # fmt: skip
        self.classifier = classifier
        super().__init__(network, upsampler, name, digest)

    @property
    def defaults(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """250 steps; of the classifier as much as was published for this size."""
        guidance = self.decoder.config.guidance if self.classifier else 0.0
        return {"steps": 250, "upsampler_steps": 250, "sampler": "ddpm", "guidance": guidance}

    @property
    def classes(self) -> int:
        """How many the network or the classifier knows; 0: none."""
        return self.decoder.config.classes or (self.classifier.config.classes if self.classifier else 0)

    @property
    def parts(self) -> dict[str, Any]:
        return super().parts | ({"classifier": self.classifier} if self.classifier else {})

    @classmethod
    def from_saved(cls, folder: Path) -> "ADM":
        name, digest, parts, _ = load.saved(folder, PARTS, ("decoder",))
        return cls(parts["decoder"], parts.get("upsampler_256"), parts.get("classifier"), name, digest)

    def generate(self, prompt: str | Sequence[str] = ANY, n: int = 1, seed: int = 0, *,
                 label: int | Sequence[int] | None = None, **options: Any) -> Generated:  # fmt: skip
        """As `UnCLIP.generate`; label: in place of a prompt, the number of a class, or several."""
        if label is not None:
            prompt = [str(k) for k in label] if isinstance(label, Sequence) else str(label)
        return super().generate(prompt, n, seed, **options)

    def idle(self) -> dict[str, str]:
        steering = ("guidance_start", "guidance_stop", "guidance_rescale")
        found = super().idle() | dict.fromkeys(steering, "a classifier's gradient is taken as it is")
        return found if self.classifier else found | {"guidance": "no classifier is beside them"}

    def fit(self, request: Request) -> Request:
        if request.negative:
            raise UnclipError("these weights read no captions; leave out the negative prompt")
        prompts = [self.label(*pair) for pair in zip(request.prompts, request.seeds, strict=True)]
        return super().fit(replace(request, prompts=prompts))

    def label(self, prompt: str, seed: int) -> str:
        """The number of the class that a prompt names or a seed draws. Raises UnclipError for one that is not known."""
        prompt = prompt.strip()
        if prompt == ANY and self.classes:
            return str(int(torch.randint(self.classes, (), generator=Draw([seed], "class").generators[0])))
        if prompt != ANY and not self.classes:
            raise UnclipError(f"the prompt is {prompt!r}, but these weights know no classes; the prompt must be {ANY}")
        if prompt != ANY and not (prompt.isascii() and prompt.isdigit() and int(prompt) < self.classes):
            raise UnclipError(f"the prompt is {prompt!r}; these weights draw one of {self.classes} classes: give its "
                              f"number, 0 to {self.classes - 1}, or {ANY}")  # fmt: skip
        return prompt

    def cut(self, text: str) -> str:
        return ""

    def stage(self, net: Network, low: Tensor | None, prompt: str, request: Request, draw: Draw, tell: Tell,
              kept: Kept | None = None) -> Tensor:  # fmt: skip
        s, c = request.settings, net.config
        y = torch.tensor([int(prompt)], device=self.device) if self.classes else None
        given = ({"y": y} if c.classes else {}) | ({} if low is None else {"low": stored(low)})
        denoise = self.bounded(c.diffusion.denoiser(net), s)
        if s.guidance and low is None and self.classifier and y is not None:
            denoise = Guide(denoise, classified(self.classifier, y), s.guidance)
        steps, spacing = (s.steps, s.spacing) if low is None else (s.upsampler_steps, "even")
        spacing = "hops" if s.sampler == "ddim" and spacing == "even" else spacing
        x = draw((3, c.size, c.size)).to(self.device)
        levels = c.diffusion.spaced(steps, spacing)
        return self.follow(walk(denoise, x, levels.down(), STEPS[s.sampler], draw.like, **given), steps, tell)


SYSTEM = ADM
PARTS: load.Kinds = {"decoder": (ADMConfig, Network), "upsampler_256": (ADMConfig, Network),
                     "classifier": (ClassifierConfig, Classifier)}  # fmt: skip


def stored(x: Tensor) -> Tensor:
    """As ADM's code stores the small pictures and reads them again."""
    return ((x + 1) * 127.5).clamp(0, 255).floor() / 127.5 - 1


def misfit(c: ADMConfig, other: ADMConfig | ClassifierConfig) -> str:
    """What keeps an upsampler or a classifier from going with the network that draws; '' if nothing does."""
    classifies = isinstance(other, ClassifierConfig)
    size = other.size if classifies else other.size // TIMES
    if size != c.size:
        return f"{'judges' if classifies else 'enlarges'} pictures of {size} px, but the network draws {c.size}"
    agree = c.classes in (0, other.classes) if classifies else other.classes in (0, c.classes)
    return "" if agree else f"knows {other.classes} classes, but the network {c.classes}"


def found_in(path: Path) -> bool:
    return holds(path, NETWORKS)


def from_folder(path: Path) -> ADM:
    """Read a folder with one network that draws, or the file of such a network and what fits it of those beside it."""
    found = Found(path if path.is_dir() else path.parent, (*NETWORKS, CLASSIFIER))
    judges = [p for p, m in found.items() if m.family == CLASSIFIER]
    enlarging = [p for p, m in found.items() if p not in judges and m.config.unet.layout]
    draws = [p for p in found if p not in judges + enlarging and path in (p, p.parent)]
    if len(draws) != 1:
        told = f"{len(draws)} networks draw there; name one of them: {draws[0]}" if draws else (
            "none of its networks draws from noise alone; put the smaller one beside the upsampler")  # fmt: skip
        raise UnclipError(f"{str(path)!r}: {told}")
    c: ADMConfig = found[draws[0]].config
    for p in judges + enlarging:
        if path.is_dir() and (why := misfit(c, found[p].config)):
            raise UnclipError(f"{str(p)!r} {why}; keep those together that fit, or name the network's own file")
    kinds = (enlarging, "an upsampler that fits"), (judges, "a classifier that fits")
    others = [one([p for p in paths if not misfit(c, found[p].config)], what) for paths, what in kinds]
    paths = [*draws, *others]
    return ADM(*map(found.read, paths), name=path.stem, digest=digest(*paths))
