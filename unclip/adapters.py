"""Adapters in a system: added to its networks, and few-step students made of a teacher and its adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from unclip.errors import UnclipError
from unclip.nn.adapter import merge, twin
from unclip.weights.adapter import Adapter, fingerprint

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP


def load_lora(self: "UnCLIP", file: str | Path, scale: float = 1.0) -> "UnCLIP":
    """Add the difference that an adapter holds, `scale` times, to the network that it was trained on. Several add up.

    Drawing costs no more than before. Raises UnclipError for an adapter of other weights than these.
    """
    if not -10 <= scale <= 10:
        raise UnclipError(f"the scale of adapter {str(file)!r} is {scale}; it must be from -10 to 10, and 1 is usual")
    if self.shelf is not None:
        raise UnclipError("an adapter is added to weights that stay in memory; leave it out, or the limit of memory")
    adapter = Adapter.load(file)
    part = adapter.config.part
    if part in self.students or not isinstance(net := self.parts.get(part), nn.Module):
        raise UnclipError(f"adapter {str(file)!r} is for the part {part!r}, which the weights {self.name!r} lack")
    adapter.check(net, origin(self, part))
    merge(net, adapter.tensors, scale)
    told = {"file": Path(file).name, "sha256": adapter.sha256, "scale": scale}
    self.lora = (*self.lora, told | {"part": part, "base": adapter.config.base})
    self.hired = {}
    return self


def student(self: "UnCLIP", name: str) -> Any:
    """A few-step network. One that is kept as an adapter is made of its teacher when it is first asked for, and shares
    with it, and with the adapters that were added to it, what it has not changed."""
    if name not in self.hired:
        net = self.students[name]
        if isinstance(net, Adapter):
            adapter, teacher = net, self.parts[net.config.part]
            adapter.check(teacher, origin(self, adapter.config.part))
            net = twin(teacher)
            merge(net, adapter.tensors, 1.0)
        self.hired[name] = net
    return self.hired[name]


def origin(system: "UnCLIP", part: str) -> str:
    """Fingerprint of a network as it was before adapters were added."""
    before = [told["base"] for told in system.lora if told["part"] == part]
    return before[0] if before else fingerprint(system.parts[part])
