"""Running in little memory: each network is filled when its turn comes, and emptied when another needs the room.

Within `deferring` networks are read without their parameters: they stay on the meta device, and how to read them is
noted. A `Shelf` then brings in what is used and puts away what was not for longest. What is computed is the same to
the last bit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.machine import give_back, resident
from unclip.nn.transformer import Transformer
from unclip.nn.unet import UNet
from unclip.weights.checkpoint import Later

METHODS = ("condition", "encode", "decode", "sample", "measure")  # by which networks are used, beside being called
SELDOM = ("image", "prior_ar", "upsampler_1024", "fast", "inpaint", "guide")  # in names of what not every caption needs


def parse_memory(memory: str | float) -> int:
    """ "6GB", "512 MB", "6GiB" or a number of bytes → bytes."""
    units = {"": 1, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(memory).strip())
    if found is None or found[2].upper() not in units or float(found[1]) == 0:
        raise UnclipError(f"memory is {memory!r}; write it as 6GB or 800MB")
    return int(float(found[1]) * units[found[2].upper()])


@dataclass
class Unit:
    """What is brought in and put away as one."""

    name: str
    net: nn.Module
    read: Callable[[str], Tensor]  # a tensor by its name in the network that was read
    prefix: str  # of its names there
    work: int  # bytes to compute in, estimated
    empty: dict[str, nn.Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.empty = dict(self.net.named_parameters())
        self.size = sum(p.numel() * p.element_size() for p in self.empty.values())
        self.here = False


def units(parts: Mapping[str, nn.Module], later: list[Later]) -> list[Unit]:
    """What of the networks that were deferred is used at one time; `turns` names parts that never are together."""
    found: list[Unit] = []
    for name, part in parts.items():
        for inner, net in part.named_modules():
            for deferred in later:
                if deferred.net is net:
                    where = f"{name}.{inner}".rstrip(".")
                    turns = [turn for turn in getattr(net, "turns", ()) if getattr(net, turn) is not None]
                    found += [Unit(f"{where}.{turn}", getattr(net, turn), deferred.read, f"{turn}.",
                                   work(getattr(net, turn), part)) for turn in turns] if turns else [
                        Unit(where, net, deferred.read, "", work(net, part))]  # fmt: skip
    return found


def work(net: nn.Module, part: nn.Module) -> int:
    """Bytes that a network computes in, beside its weights: what a U-Net keeps for its way up, and some of its largest
    maps; the keys and some of the activations of a Transformer."""
    total, c = 0, getattr(part, "config", None)
    for module in net.modules():
        if isinstance(module, UNet):
            u, batch = module.config, 1 if hasattr(part, "turns") else 2  # guidance runs two halves at once
            side = getattr(c, "size", 64) // u.patch
            maps = [width * (side >> level) ** 2 for level, width in enumerate(u.channels)]
            largest = max(p.numel() for p in module.parameters())  # convolutions turn their weights to another layout
            total += 4 * batch * ((u.depth + 1) * sum(maps) + 20 * max(maps)) + 8 * largest
        elif isinstance(module, Transformer):
            t = module.config
            total += 4 * 2 * (getattr(c, "context", 256) + 8) * t.width * (2 * t.depth + 24)
    return total


class Shelf:
    """Keeps what a system's networks take below `memory` bytes. Raises UnclipError where one alone does not fit."""

    def __init__(self, parts: Mapping[str, nn.Module], later: list[Later], memory: int, device: torch.device):
        self.memory, self.device = memory, device
        self.units, self.used = units(parts, later), list[Unit]()
        own = {id(p) for unit in self.units for p in unit.empty.values()}
        for deferred in later:
            rest = {k: deferred.read(k) for k, p in deferred.net.named_parameters() if id(p) not in own}
            deferred.net.load_state_dict(rest, strict=False, assign=True)
            deferred.net._apply(lambda t: t if t.is_meta else t.to(device))
        for unit in self.units:
            unit.net.requires_grad_(False).register_forward_pre_hook(partial(self.called, unit))
            for name in METHODS:
                if hasattr(unit.net, name):
                    setattr(unit.net, name, self.fetching(unit, getattr(unit.net, name)))
        give_back()
        self.base = resident() if device.type == "cpu" else 0
        for unit in self.units:
            if not any(word in unit.name for word in SELDOM):
                self.check(unit)

    def called(self, unit: Unit, net: nn.Module, given: Any) -> None:
        self.fetch(unit)

    def fetching(self, unit: Unit, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def first(*args: Any, **options: Any) -> Any:
            self.fetch(unit)
            return method(*args, **options)

        return first

    def check(self, unit: Unit) -> None:
        least = self.base + unit.size + unit.work
        if least > self.memory:
            raise UnclipError(f"memory of {gb(self.memory)} is too little: {unit.name} alone needs {gb(least)}, "
                              f"{gb(unit.size)} of weights, {gb(unit.work)} to compute in and {gb(self.base)} for "
                              "Python and torch")  # fmt: skip

    def leaving(self, unit: Unit, used: list[Unit]) -> list[Unit]:
        """Which of those in use, the longest unused first, must leave for a unit to come."""
        gone, left = [], [other for other in used if other is not unit]
        while left and self.base + sum(u.size for u in left) + unit.size + unit.work > self.memory:
            gone.append(left.pop(0))
        return gone

    def fetch(self, unit: Unit) -> None:
        """Bring a unit in, if it is not there; in float32 and in the layout that it was told to have."""
        self.used = [other for other in self.used if other is not unit] + [unit]
        if unit.here:
            return
        self.check(unit)
        for other in self.leaving(unit, self.used):
            self.put_away(other)
        give_back()
        state = {}
        for key, empty in unit.empty.items():
            tensor = torch.empty_like(empty, device=self.device).copy_(unit.read(unit.prefix + key))
            state[key] = nn.Parameter(tensor, requires_grad=False)
        unit.net.load_state_dict(state, strict=False, assign=True)
        unit.here = True

    def put_away(self, unit: Unit) -> None:
        unit.net.load_state_dict(unit.empty, strict=False, assign=True)
        unit.here, self.used = False, [other for other in self.used if other is not unit]

    def plan(self) -> str:
        """What is loaded when a caption is drawn, what leaves for it, and the peak, a line each."""
        lines, used = [f"memory {gb(self.memory)} on {self.device}, float32; {gb(self.base)} are taken before"], []
        for unit in self.units:
            if any(word in unit.name for word in SELDOM):
                continue
            gone = self.leaving(unit, used)
            used = [other for other in used if other not in gone] + [unit]
            peak = self.base + sum(other.size for other in used) + unit.work
            free = f"free {', '.join(other.name for other in gone)}; " if gone else ""
            lines.append(f"  {unit.name}: {free}load {gb(unit.size)}; peak {gb(peak)}")
        return "\n".join(lines)


def gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**7 else f"{count / 1e6:.2f} MB"
