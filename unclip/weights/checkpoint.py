"""A trained network as a folder: config.json beside model.safetensors, read and written strictly."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unclip.errors import UnclipError
from unclip.files import atomic, write_bytes, writing
from unclip.weights.config import from_dict, read_json, to_dict

C = TypeVar("C")
Net = TypeVar("Net", bound=nn.Module)
TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # of safetensors → of torch  # fmt: skip
NAMES = {torchs: theirs for theirs, torchs in TYPES.items()}
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_module(
    folder: str | Path, config: object, tensors: Mapping[str, Tensor], dtype: torch.dtype, notes: Mapping[str, str]
) -> None:
    """Write config.json and model.safetensors; floating tensors become `dtype`, `notes` its metadata."""
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps({"kind": type(config).__name__, **to_dict(config)}, indent=1)
    write_tensors(folder / WEIGHTS, tensors, dtype, {"format": "pt", "config": described, **notes})
    write_bytes(folder / CONFIG, described.encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, notes: Mapping[str, str]) -> None:
    """A safetensors file, floating tensors as `dtype`, in one order: equal weights are equal files.

    Tensors are converted and written one by one, so that a large network needs no second copy in memory.
    """
    kinds = {key: dtype if v.is_floating_point() else v.dtype for key, v in tensors.items()}
    order = sorted(tensors, key=lambda key: (-kinds[key].itemsize, key))  # so that each is aligned to its own size
    header: dict[str, Any] = {"__metadata__": dict(notes)}
    end = 0
    for key in order:
        begin, end = end, end + tensors[key].numel() * kinds[key].itemsize
        kind = NAMES[str(kinds[key]).removeprefix("torch.")]
        header[key] = {"dtype": kind, "shape": list(tensors[key].shape), "data_offsets": [begin, end]}
    head = json.dumps(header, sort_keys=True).encode()
    head += b" " * (-len(head) % 8)
    with atomic(path) as temporary, open(temporary, "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head)
        for key in order:
            f.write(tensors[key].detach().to("cpu", kinds[key]).contiguous().reshape(-1).view(torch.uint8).numpy().data)


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
    give(net, lambda k: aligned(tensors[k].to(expected[k].dtype)))


class Later(NamedTuple):
    """A network that still lies on the meta device, and how to read a tensor of it by its name."""

    net: nn.Module
    read: Callable[[str], Tensor]


DEFERRED: ContextVar[list[Later] | None] = ContextVar("deferred", default=None)


@contextmanager
def deferring() -> Iterator[list[Later]]:
    """Networks read within have no parameters yet; they are listed with how to get them. See `shelf.py`."""
    later: list[Later] = []
    token = DEFERRED.set(later)
    try:
        yield later
    finally:
        DEFERRED.reset(token)


def give(net: nn.Module, read: Callable[[str], Tensor]) -> None:
    """Fill a network built on the meta device; within `deferring` with its buffers alone, which are small."""
    keys, later = list(net.state_dict()), DEFERRED.get()
    if later is not None:
        later.append(Later(net, read))
        parameters = dict(net.named_parameters())
        keys = [key for key in keys if key not in parameters]
    net.load_state_dict({key: read(key) for key in keys}, strict=later is None, assign=True)


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


def load_module(folder: str | Path, kind: type[C], build: Callable[[C], Net]) -> tuple[Net, C]:
    """The network of a folder, in evaluation mode and float32, with its configuration."""
    config = load_config(folder, kind)
    with torch.device("meta"), Unfilled():
        net = build(config)
    path = Path(folder) / WEIGHTS
    load_into(net, read_tensors(path)[0] if DEFERRED.get() is None else Mapped(path), str(path))
    return net.requires_grad_(False).eval(), config


class Mapped(Mapping[str, Tensor]):
    """The tensors of a safetensors file, which is mapped only while one is taken: what is read leaves no trace."""

    def __init__(self, path: Path):
        self.path = path
        self.shapes = {key: tensor.to("meta") for key, tensor in read_tensors(path)[0].items()}

    def __getitem__(self, key: str) -> Tensor:
        with safetensors.safe_open(self.path, "pt") as f:
            return f.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def items(self) -> Any:
        """With tensors that have a shape and no numbers."""
        return self.shapes.items()
