"""A trained network as a folder: config.json beside model.safetensors, read and written strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unclip.errors import UnclipError
from unclip.files import write_bytes, writing
from unclip.weights.config import from_dict, read_json, to_dict

C = TypeVar("C")
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_module(
    folder: str | Path, config: object, tensors: Mapping[str, Tensor], dtype: torch.dtype, notes: Mapping[str, str]
) -> None:
    """Write config.json and model.safetensors; floating tensors become `dtype`, `notes` its metadata."""
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ready = {k: (v.to(dtype) if v.is_floating_point() else v).cpu().contiguous() for k, v in tensors.items()}
    described = json.dumps({"kind": type(config).__name__, **to_dict(config)}, indent=1)
    write_bytes(folder / WEIGHTS, in_order(save(ready, {"format": "pt", "config": described, **notes})))
    write_bytes(folder / CONFIG, described.encode())


def in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted: the library's order is random, and equal weights be equal files."""
    body = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:body]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[body:]


def load_config(folder: str | Path, kind: type[C]) -> C:
    """The configuration of a folder that `save_module` wrote."""
    path = Path(folder) / CONFIG
    data = read_json(path)
    found = data.pop("kind", None)
    if found != kind.__name__:
        raise UnclipError(f"{str(path)!r} describes {found!r}, not a {kind.__name__}; name the right folder")
    try:
        return from_dict(kind, data)
    except UnclipError as e:
        raise UnclipError(f"{str(path)!r}: {e}") from e


def read_tensors(path: str | Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (memory-mapped) and metadata of a safetensors file."""
    try:
        with safetensors.safe_open(path, "pt", device=str(device)) as f:
            return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror or e}") from e
    except safetensors.SafetensorError as e:
        raise UnclipError(f"{str(path)!r} is damaged or no safetensors file: {e}; fetch or train it again") from e


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Give a network built on the meta device its tensors: every one used, none missing, shapes equal.

    Floating tensors take the dtype of the network's own parameters.
    """
    expected = dict(net.state_dict())
    for key, tensor in tensors.items():
        if key not in expected:
            raise UnclipError(f"{name!r} holds {key!r} {list(tensor.shape)}, which {type(net).__name__} lacks")
        if tensor.shape != expected[key].shape:
            found, wanted = list(tensor.shape), list(expected[key].shape)
            raise UnclipError(f"{name!r}: {key!r} is {found}, but {type(net).__name__} has {wanted}")
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise UnclipError(f"{name!r} lacks {len(missing)} tensors of {type(net).__name__}, {missing[0]!r} first")
    net.load_state_dict({k: aligned(v.to(expected[k].dtype)) for k, v in tensors.items()}, assign=True)


def aligned(v: Tensor) -> Tensor:
    """`v` where torch itself would put it: a mapped file's tensors lie anywhere, and matrix products round by that."""
    return v if v.data_ptr() % 64 == 0 else v.clone()


class Unfilled(TorchFunctionMode):
    """Networks built under it, on the meta device, draw no first values.

    Values drawn there pass through torch's compiler: a second of start-up, for numbers that the file replaces.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.mul):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def load_module(folder: str | Path, kind: type[C], build: type[nn.Module]) -> tuple[nn.Module, C]:
    """The network of a folder, in evaluation mode and float32, with its configuration."""
    config = load_config(folder, kind)
    with torch.device("meta"), Unfilled():
        net = build(config)
    path = Path(folder) / WEIGHTS
    load_into(net, read_tensors(path)[0], str(path))
    return net.requires_grad_(False).eval(), config
