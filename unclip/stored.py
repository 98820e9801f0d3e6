"""How a system is read, kept in memory, and written. What it draws with them is in unclip/pipeline.py."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import nn

from unclip.errors import UnclipError
from unclip.machine import keep_buffers, pick_device
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.prior_ar import PriorAR, PriorARConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.weights import hub
from unclip.weights.adapter import Adapter, AdapterConfig, fingerprint
from unclip.weights.checkpoint import CONFIG, WEIGHTS, deferring, load_module, save_module
from unclip.weights.config import read_json, to_dict
from unclip.weights.scheduler import Scheduler
from unclip.weights.shelf import Shelf, parse_memory

PARTS = {"clip": (CLIPConfig, CLIP), "prior": (PriorConfig, Prior), "prior_ar": (PriorARConfig, PriorAR),
         "decoder": (DecoderConfig, Decoder), "upsampler_256": (UpsamplerConfig, Upsampler),
         "upsampler_1024": (UpsamplerConfig, Upsampler), "decoder_fast": (DecoderConfig, Decoder),
         "upsampler_256_fast": (UpsamplerConfig, Upsampler)}  # fmt: skip
STUDENTS = ("decoder_fast", "upsampler_256_fast")
TOKENIZER = Path("tokenizer") / "tokenizer.json"


class Stored:
    """Networks, their tokenizer and a name, in folders of weights and on a device."""

    system: ClassVar[str] = ""  # what model_index.json calls a public system
    shelf: Shelf | None = None  # where its networks wait for their turn, in little memory
    name: str
    tokenizer: Any  # a Tokenizer, or one of another project
    schedulers: Mapping[str, Scheduler] = MappingProxyType({})  # how its networks are sampled, where they do not say it
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    @property
    def parts(self) -> dict[str, Any]:
        """The networks there are, by the names of their folders."""
        raise NotImplementedError

    @property
    def tokenizers(self) -> dict[str, Any]:
        """Those that are written with the networks."""
        return {TOKENIZER.stem: self.tokenizer}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "mini",
        *,
        prior: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
        memory: str | int | None = None,
    ) -> Self:
        """Load shipped weights by name, a folder, or a repository of the hub ("org/name").

        prior: likewise, for systems whose prior was published apart (Kandinsky, Stable unCLIP); by default the one that
        was published with it, if there is one.
        dtype: bfloat16 computes in it (the weights stay float32). Files are checked against the sha256 noted when they
        were written, and never executed. memory: "6GB", say: networks are loaded when they are needed and put away when
        others are, so that all of it stays below; the plan is printed on stderr, and the pictures are the same.
        """
        keep_buffers()
        from unclip import published

        folder = published.locate(source, revision, local_files_only)
        read, apart, _ = published.reader(folder) or published.Reader(cls.from_saved)
        if prior is not None and not apart:
            raise UnclipError(f"{str(source)!r} holds the prior that it needs, or needs none; leave out prior")
        place, given = pick_device(device), () if prior is None else (prior,)
        if memory is None:
            return read(folder, *given).to(place, dtype)
        limit = parse_memory(memory)
        with deferring() as later:
            system = read(folder, *given).to(place, dtype)
        nets = {name: net for name, net in system.parts.items() if isinstance(net, nn.Module)}
        system.shelf = Shelf(nets, later, limit, place)
        print(system.shelf.plan(), file=sys.stderr)
        return system

    @classmethod
    def from_saved(cls, folder: Path) -> Self:
        """Read what `save_pretrained` wrote."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write a folder that `from_pretrained` reads: model_index.json, tokenizer/, and a folder for each network.

        dtype: of the weights written; by default float16, but float32 for a public system.
        """
        if self.shelf is not None:
            raise UnclipError("what runs in little memory is not all there to be saved; load it without memory=")
        folder, dtype = Path(folder), dtype or (torch.float32 if self.system else torch.float16)
        for name, part in self.parts.items():
            if isinstance(part, Adapter):  # is for the weights as they are now, with what was added to them
                teacher = fingerprint(self.parts[part.config.part], dtype)
                save_module(folder / name, replace(part.config, base=teacher), part.tensors, dtype, {})
            else:
                save_module(folder / name, part.config, part.state_dict(), dtype, {})
        for name, tokenizer in self.tokenizers.items():
            path = (folder / TOKENIZER).with_stem(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            tokenizer.save(path)
        schedulers = {name: to_dict(scheduler) for name, scheduler in self.schedulers.items()}
        hub.write_index(folder, self.name, self.parts, system=self.system, schedulers=schedulers)
        return folder

    def save_diffusers(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write a folder that diffusers loads. Raises UnclipError where diffusers has no equal networks."""
        raise UnclipError(
            f"{self.name!r} cannot be written for diffusers: it has no network of the decoder's kind, which reads a "
            "picture in patches and has a text encoder of its own; written are Karlo, Kandinsky and Stable unCLIP"
        )

    def push_to_hub(self, repository: str, *, private: bool = False, dtype: torch.dtype | None = None) -> str:
        """Upload to the Hugging Face hub; returns the address of the commit."""
        return hub.push(repository, lambda folder: self.save_pretrained(folder, dtype), private)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Move every network; `dtype` is what sampling computes in."""
        if self.shelf is not None and torch.device(device) != self.device:
            raise UnclipError(f"what runs in little memory stays on {self.device}; load it anew for {device}")
        self.device, self.dtype = torch.device(device), dtype if dtype is not None else self.dtype
        self.hired: dict[str, Any] = {}
        for name, net in self.parts.items():
            if isinstance(net, nn.Module):
                if not any(p.is_meta for p in net.parameters()):  # these wait, see `shelf`
                    net.to(self.device)
                if name.startswith(("decoder", "upsampler")):
                    net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self


def load_part(folder: Path, name: str) -> Any:
    """A network of a folder of weights, or the adapter that is kept in a student's place."""
    if name in STUDENTS and read_json(folder / name / CONFIG).get("kind") == AdapterConfig.__name__:
        return Adapter.load(folder / name / WEIGHTS)
    return load_module(folder / name, *PARTS[name])[0]
