"""Systems without a prior: a network draws what it is told, another enlarges that. GLIDE and ADM are two of them."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unclip import files
from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.pictures import to_pil
from unclip.pipeline import Tell, UnCLIP
from unclip.settings import Reporter, Request
from unclip.weights import hub, load
from unclip.weights.container import open_file
from unclip.weights.families import FAMILIES
from unclip.weights.family import Family, File
from unclip.weights.match import Match, ranked, recognise

T = TypeVar("T")
Kept = Mapping[int, tuple[Tensor, Tensor]]  # size → picture and where it is known, both [1, 3, size, size]


class Chain(UnCLIP):
    """There is no z_i: of the manipulations there is only what a system has in its own way."""

    def __init__(self, decoder: Any, upsampler: Any, name: str, digest: str):
        self.name, self.digest = name, digest
        self.prior = self.prior_ar = self.upsampler_1024 = None
        self.decoder, self.upsampler, self.students = decoder, upsampler, {}
        self.to("cpu", torch.float32)

    @abstractmethod
    def stage(self, net: Any, low: Tensor | None, prompt: str, request: Request, draw: Draw, tell: Tell,
              kept: Kept | None = None) -> Tensor:  # fmt: skip
        """What `net` draws of the prompt, [1, 3, S, S] in [−1, 1]: from nothing, or from the small picture `low`."""

    def idle(self) -> dict[str, str]:
        lacking = dict.fromkeys(("prior", "guidance_z", "noise_level"), "they have no z_i")
        return super().idle() | lacking | {"tile": "their upsampler looks at the whole picture"}

    def fit(self, request: Request) -> Request:
        s = request.settings
        self.check(s)
        size = s.size or self.sizes[-1]
        if size not in self.sizes:
            lacking = "" if self.upsampler else "; there is no upsampler with them"
            raise UnclipError(f"size is {size}; these weights draw {' or '.join(map(str, self.sizes))}{lacking}")
        return replace(request, settings=self.hurried(replace(s, size=size), request.negative))

    @torch.no_grad()  # not inference mode: guidance by another network takes a gradient
    def draw(self, request: Request, progress: bool = True) -> Iterator[tuple[Image.Image, Tensor]]:
        """Each picture of a fitted request as soon as it is done; what stands for its z_i is empty."""
        assert request.settings.size is not None, "the request is not fitted"
        nets = {"decoder": self.decoder, **self.cascade(request.settings.size)}
        for x in self.paint(request, nets, progress):
            yield to_pil(x)[0], torch.empty(0)

    def paint(self, request: Request, nets: Mapping[str, Any], progress: bool, kept: Kept | None = None
              ) -> Iterator[Tensor]:  # fmt: skip
        """Each picture of a fitted request, [1, 3, S, S], by these networks one after the other."""
        s = request.settings
        steps = sum({"decoder": s.steps, "upsampler": s.upsampler_steps}[name] for name in nets)
        with Reporter(request.callback, progress, len(request.seeds), steps) as report:
            jobs = list(enumerate(zip(request.prompts, request.seeds, strict=True)))
            for group in [jobs] if self.shelf else [[job] for job in jobs]:  # as `UnCLIP.draw` does
                drawn: list[Any] = [None] * len(group)
                for name, net in nets.items():
                    drawn = [self.stage(net, x, prompt, request, Draw([seed], name), partial(report, i, name), kept)
                             for x, (i, (prompt, seed)) in zip(drawn, group, strict=True)]  # fmt: skip
                yield from drawn

    @property
    def tokenizers(self) -> dict[str, Any]:
        return {}  # they are published with the code

    def save_diffusers(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        raise UnclipError(f"{self.name!r} cannot be written for diffusers: it has no pipeline of that kind; written "
                          "are Karlo, Kandinsky and Stable unCLIP")  # fmt: skip

    @property
    def parts(self) -> dict[str, Any]:
        nets = {"decoder": self.decoder, "upsampler_256": self.upsampler}
        return {name: net for name, net in nets.items() if net is not None}

    def refuse(self, *_: Any, **__: Any) -> Any:
        raise UnclipError(f"the weights {self.name!r} have no CLIP embedding z_i, which this works on; "
                          "unclip generate draws with them")  # fmt: skip

    embed = sample_prior = guided = fill_in = refuse
    invert = reconstruct = variations = img2img = interpolate = text_diff = pca_probe = refuse


# ---- finding the files that make up a system -----------------------------------------------------------------------


def candidates(path: Path) -> list[Path]:
    """The file itself, or those of a folder that no index describes."""
    if path.is_dir():
        return [] if (path / hub.INDEX).is_file() else sorted(p for p in path.iterdir() if p.is_file())
    return [path] if path.is_file() else []


def looks_like(path: Path, families: tuple[Family, ...]) -> File | None:
    """An open file of weights that are most likely of one of these families."""
    try:
        file = open_file(path)
    except UnclipError:
        return None
    return file if any(f in families for f in ranked(file.schema, FAMILIES)[:1]) else None


def holds(path: Path, families: tuple[Family, ...]) -> bool:
    return any(looks_like(p, families) for p in candidates(path))


class Found(dict[Path, Match]):
    """Files of a folder by what is in them; each fits its family exactly, none has been read."""

    def __init__(self, folder: Path, families: tuple[Family, ...]):
        self.files = {p: file for p in candidates(folder) if (file := looks_like(p, families))}
        super().__init__({p: recognise(file.schema, families, str(p)) for p, file in self.files.items()})

    def read(self, path: Path | None) -> Any:
        """The network in a file; None for None."""
        if path is None:
            return None
        file = self.files[path]
        return load.fill(self[path], file.read, torch.float32, file.forget)


def one(paths: list[Path], what: str) -> Path | None:
    """The only one, or None where there is none. Raises UnclipError for several."""
    if len(paths) > 1:
        raise UnclipError(f"{' and '.join(repr(str(p)) for p in paths)} are each {what}; keep one of them there")
    return paths[0] if paths else None


def digest(*paths: Path | None) -> str:
    """10 hex digits that stand for the content of these files."""
    return sha256("".join(sorted(files.sha256(p) for p in paths if p)).encode()).hexdigest()[:10]
