"""Files of adapters: one safetensors file with the configuration in its metadata, refused by any other network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import sha256
from unclip.nn.adapter import adaptable, factors, learnt, original
from unclip.weights.checkpoint import read_tensors, write_tensors
from unclip.weights.config import from_dict, to_dict


@dataclass(frozen=True)
class AdapterConfig:
    part: str  # of a system: the network that it changes
    rank: int
    base: str  # the weights that it was trained on, see `fingerprint`


@dataclass(frozen=True)
class Adapter:
    """What a network learnt beside its frozen weights; `tensors` as `learnt` names them."""

    config: AdapterConfig
    tensors: dict[str, Tensor]
    name: str = "adapter"
    sha256: str = ""

    @classmethod
    def of(cls, net: nn.Module, part: str, rank: int) -> "Adapter":
        """That of a network in training."""
        return cls(AdapterConfig(part, rank, fingerprint(net)), {**learnt(net)})

    @classmethod
    def load(cls, path: str | Path) -> "Adapter":
        tensors, notes = read_tensors(path)
        try:
            about = json.loads(notes.get("config", "{}"))
            kind = about.pop("kind", None)
        except (ValueError, RecursionError, AttributeError, TypeError):
            about, kind = {}, None
        if kind != AdapterConfig.__name__:
            raise UnclipError(f"{str(path)!r} is no adapter of unclip's; train one: unclip train … --set lora=16")
        try:
            config = from_dict(AdapterConfig, about)
        except (UnclipError, TypeError) as e:
            raise UnclipError(f"{str(path)!r} is damaged: {e}; fetch or train it again") from e
        return cls(config, {k: v.float() for k, v in tensors.items()}, str(path), sha256(path))

    def save(self, path: str | Path, notes: Mapping[str, str], dtype: torch.dtype = torch.float16) -> None:
        about = json.dumps({"kind": AdapterConfig.__name__, **to_dict(self.config)})
        write_tensors(Path(path), self.tensors, dtype, {"format": "pt", "config": about, **notes})

    def check(self, net: nn.Module, base: str) -> None:
        """Raises UnclipError unless it was trained on such a network, and on the weights of fingerprint `base`."""
        what, fits = f"adapter {self.name!r}", {}
        for name, place in adaptable(net).items():
            fits |= {f"{name}.{k}": shape for k, shape in factors(original(*place), self.config.rank).items()}
        found = {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}
        for key in sorted({*fits, *found}):
            if found.get(key) != fits.get(key):
                raise UnclipError(f"{what} is for another {self.config.part}: its {key!r} is "
                                  f"{found.get(key, 'absent')}, not {fits.get(key, 'absent')}")  # fmt: skip
        if self.config.base != base:
            raise UnclipError(f"{what} was trained on the {self.config.part} {self.config.base}, but this is {base}; "
                              "name the weights that it was trained on, or train it on these")  # fmt: skip


def fingerprint(net: nn.Module, kept: torch.dtype = torch.float16) -> str:
    """10 hex digits of what adapters change in a network, without their Δ: as it is when weights are `kept` so.

    In half precision, so that weights are the same ones before and after they are written.
    """
    total = hashlib.sha256()
    for name, place in adaptable(net).items():
        weight = original(*place).detach().to("cpu", kept).to(torch.float16).contiguous()
        total.update(f"{name} {list(weight.shape)}\n".encode())
        total.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:10]
