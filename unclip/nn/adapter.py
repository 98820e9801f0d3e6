"""Adapters (LoRA, Hu et al. 2106.09685): a frozen network learns a small difference to each of its weights.

In training each weight is computed as W + Δ, by torch's parametrisations: the network's own code does not know of it.
"""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Net = TypeVar("Net", bound=nn.Module)
KINDS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def factors(weight: Tensor, rank: int) -> dict[str, tuple[int, ...]]:
    """What Δ is made of, and the shapes. Of W [out, in, …]: B [out, r] and A [r, in · …], r at most W's own rank.

    Biases and the scales of norms have no ranks and are few: of b [out], d [out] itself.
    """
    if weight.ndim == 1:
        return {"d": tuple(weight.shape)}
    out, size = len(weight), weight[0].numel()
    return {"A": (min(rank, out, size), size), "B": (out, min(rank, out, size))}


def product(weight: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """Δ of its `factors`, in W's shape."""
    return parts["d"] if weight.ndim == 1 else (parts["B"] @ parts["A"]).view(weight.shape)


class Delta(nn.Module):
    """W → W + Δ. Δ is zero at first: A is random, B and d are zero."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        for name, shape in factors(weight, rank).items():
            first = torch.randn(shape) / shape[1] ** 0.5 if name == "A" else torch.zeros(shape)
            self.register_parameter(name, nn.Parameter(first.to(weight.device)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + product(weight, dict(self.named_parameters()))


def adaptable(net: nn.Module) -> dict[str, tuple[Any, str]]:
    """What an adapter changes, by name: the weights and biases of layers and norms, each as (module, "weight")."""
    return {f"{path}.{key}".lstrip("."): (module, key) for path, module in net.named_modules()
            if isinstance(module, KINDS) for key in ("weight", "bias")
            if getattr(module, key, None) is not None}  # fmt: skip


def original(module: Any, key: str) -> Tensor:
    """W of W + Δ."""
    return module.parametrizations[key].original if parametrize.is_parametrized(module, key) else getattr(module, key)


def adapt(net: nn.Module, rank: int) -> None:
    """Freeze a network, and add a trainable Δ to whatever is `adaptable` in it."""
    net.requires_grad_(False)
    for module, key in adaptable(net).values():
        parametrize.register_parametrization(module, key, Delta(getattr(module, key), rank))


def learnt(net: nn.Module) -> dict[str, nn.Parameter]:
    """The factors of an adapted network: "unet.conv_in.weight.A", "unet.conv_in.weight.B", "unet.conv_in.bias.d" …"""
    return {f"{name}.{factor}": parameter for name, (module, key) in adaptable(net).items()
            for factor, parameter in module.parametrizations[key][0].named_parameters()}  # fmt: skip


def plain(net: nn.Module) -> dict[str, Tensor]:
    """The state of an adapted network as of one that was trained whole: W + Δ under W's name. Of others, their own."""
    added = {name: getattr(module, key).detach() for name, (module, key) in adaptable(net).items()
             if parametrize.is_parametrized(module, key)}  # fmt: skip
    return {k: v for k, v in net.state_dict().items() if ".parametrizations." not in k} | added


def twin(net: Net) -> Net:
    """A copy that shares with the network what is frozen in it."""
    return copy.deepcopy(net, {id(p): p for p in net.parameters() if not p.requires_grad})


@torch.no_grad()
def merge(net: nn.Module, parts: Mapping[str, Tensor], scale: float) -> None:
    """Put W + scale · Δ in the place of W, which stays as it is: another network may share it."""
    for name, (module, key) in adaptable(net).items():
        weight = getattr(module, key)
        own = {factor: parts[f"{name}.{factor}"].to(weight) for factor in factors(weight, 1)}
        merged = weight.clone().add_(product(weight, own), alpha=scale)
        setattr(module, key, nn.Parameter(merged, requires_grad=False))
