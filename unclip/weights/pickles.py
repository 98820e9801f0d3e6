"""Pickles read without a pickle machine: a few instructions, none of which can call, import or look anything up.

Python's own unpickler calls what a file names, and lists of what it may call have been broken out of again and again.
Here a name is only ever a `Thing`: a word. Of those known to describe tensors the description is kept; modules, which
DALL·E 1 and TorchScript store whole, become inert `Thing`s with the state that the file gives them; any other name is
an error.
"""

import pickletools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from unclip.errors import UnclipError

MODULES = ("torch.nn.", "dall_e.", "__torch__.", "pytorch_lightning.", "lightning.", "omegaconf.", "numpy.", "typing.")
PLAIN = {
    "collections.OrderedDict", "collections.defaultdict", "argparse.Namespace", "torch.Size", "torch.device",
    "builtins.set", "__builtin__.set", "builtins.dict", "__builtin__.dict", "builtins.list", "__builtin__.list",
    "builtins.int", "__builtin__.int", "_codecs.encode", "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.storage.UntypedStorage",
}  # fmt: skip
STORAGES = {
    "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Double": "float64", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
TAGS = "torch.jit._pickle."  # TorchScript's notes on what a list holds


class Thing:
    """A class or function that a pickle names, or an object of one: inert either way."""

    def __init__(self, name: str, state: Any = None):
        self.name, self.state = name, state


class Storage(NamedTuple):
    key: str
    dtype: str
    count: int


class Ref(NamedTuple):
    """A tensor that a pickle describes: where it lies in a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def whole(*values: Any) -> bool:
    return all(type(v) is int and 0 <= v < 2**48 for v in values)


def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Ref:
    """What torch's `_rebuild_tensor_v2` is told, checked: it lies within its storage and shows no place twice."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without a storage, shape or strides")
    if not whole(offset, *shape, *stride) or len(shape) != len(stride) or len(shape) > 8:
        raise ValueError("a tensor whose shape or strides are no sizes")
    numel, last = 1, offset
    for length, step in zip(shape, stride, strict=True):
        numel, last = numel * length, last + max(length - 1, 0) * step
    if numel > storage.count or (numel and last >= storage.count):
        raise ValueError(f"a tensor {list(shape)} that reaches beyond its storage of {storage.count}")
    return Ref(storage, offset, shape, stride)


def call(thing: Any, args: Any) -> Any:
    """What a pickle asks to call: described, never called."""
    if not isinstance(thing, Thing) or not isinstance(args, tuple):
        raise ValueError("it calls what cannot be called")
    name = thing.name
    if name.startswith("torch._utils._rebuild_tensor"):
        return tensor(*args)
    if name == "torch._utils._rebuild_parameter" or name.startswith(TAGS):
        return args[0]
    if name == "torch.Size":
        return tuple(args[0])
    if name == "collections.OrderedDict":
        return dict(args[0]) if args and all(isinstance(p, list | tuple) and hashable(p[0]) for p in args[0]) else {}
    return Thing(name, args)


def hashable(key: Any) -> bool:
    """Keys that hash in one step: a tuple nested a million deep would overflow the stack."""
    return isinstance(key, str | int | float | bytes | Thing | None)


def persistent(pid: Any) -> Storage | Thing:
    """("storage", type, key, device, count) → where a tensor's numbers are; ("module", class, ...) → the class."""
    if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Thing):
        return pid[1]
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Thing):
        raise ValueError("a storage that is described in no known way")
    kind = pid[1].name.removeprefix("torch.").removesuffix("Storage")
    if kind not in STORAGES or not isinstance(pid[2], str) or not whole(pid[4]):
        raise ValueError(f"a storage of unknown kind {pid[1].name!r}")
    if len(pid) > 5 and pid[5] is not None:
        raise ValueError("a storage that is part of another")
    return Storage(pid[2], STORAGES[kind], pid[4])


def named(module: Any, name: Any) -> Thing:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    full = f"{module}.{name}"
    storage = full.startswith("torch.") and full.removeprefix("torch.").removesuffix("Storage") in STORAGES
    if not (storage or full in PLAIN or full.startswith((*MODULES, TAGS))):
        raise UnclipError(f"it names {full[:80]!r}, which weights have no use for; nothing was run, do not trust it")
    return Thing(full)


@contextmanager
def judged(name: str) -> Iterator[None]:
    """Whatever reading a file runs into becomes one line that names it."""
    try:
        yield
    except UnclipError as e:
        raise UnclipError(f"{name!r} is no file of weights: {e}") from e
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, struct.error, RecursionError) as e:
        reason = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise UnclipError(f"{name!r} is damaged or no file of weights: {reason}; fetch it again") from e


LIMIT = 500_000  # instructions; the largest model here has 60,000
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
          "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "UNICODE"}  # fmt: skip
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list,
}  # fmt: skip


def read(file: Any, storages: dict[str, Storage] | None = None) -> Any:
    """One pickle from where `file` stands: plain values, `Ref`s and `Thing`s. To be called within `judged`.

    `file` is a mapped one or bytes, which give what there is when more is asked for: a real one would first make room
    for it. `storages` gathers all that the pickle speaks of.

    A stack machine: what each instruction makes is kept in a list that marks cut in pieces.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[Any, Any] = {}

    def items() -> list[Any]:
        """What was put on the stack since the last mark."""
        nonlocal stack
        top, stack = stack, marked.pop()
        return top

    for code, arg, _ in islice(pickletools.genops(file), LIMIT):
        op = code.name
        if op in VALUES:
            stack.append(arg)
        elif op in CONSTANTS:
            stack.append(CONSTANTS[op]())
        elif op in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[arg] = stack[-1]
        elif op == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif op == "MARK":
            marked.append(stack)
            stack = []
        elif op == "TUPLE":
            top = tuple(items())
            stack.append(top)
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(op[-1])
            if len(stack) < n:
                raise ValueError("a tuple of more than there is")
            stack[-n:] = [tuple(stack[-n:])]
        elif op in ("APPEND", "APPENDS", "ADDITEMS"):
            values = items() if op != "APPEND" else [stack.pop()]
            into(stack[-1], list).extend(values)
        elif op in ("SETITEM", "SETITEMS"):
            values = items() if op == "SETITEMS" else [stack.pop(-2), stack.pop()]
            update(stack[-1], values)
        elif op == "GLOBAL":
            stack.append(named(*str(arg).split(" ", 1)))
        elif op == "STACK_GLOBAL":
            word = stack.pop()
            stack.append(named(stack.pop(), word))
        elif op in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            stack.append(call(stack.pop(), args))
        elif op == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Thing):
                stack[-1].state = state
        elif op == "BINPERSID":
            storage = persistent(stack.pop())
            stack.append(storage)
            if storages is not None and isinstance(storage, Storage):
                storages[storage.key] = storage
        elif op == "STOP":
            return stack.pop()
        elif op not in ("PROTO", "FRAME"):
            raise ValueError(f"the instruction {op}, which weights have no use for")
    raise ValueError("it ends too early, or never")


def into(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {kind.__name__} was expected")
    return value


def update(target: Any, values: list[Any]) -> None:
    """key, value, key, value → the dictionary; what a class adds to itself is of no interest."""
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not hashable(key):
            raise ValueError("a key that is neither text nor number")
        if not isinstance(target, Thing):
            into(target, dict)[key] = value


WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # where a training state keeps its network


def flatten(tree: Any) -> dict[str, Ref]:
    """The tensors of a pickle by dotted name: of a state dict, one inside a training state, or a stored module."""
    if isinstance(tree, Ref):
        return {"0": tree}
    if isinstance(tree, list | tuple):
        return {str(i): v for i, v in enumerate(tree) if isinstance(v, Ref)}
    if isinstance(tree, dict):
        own = {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, Ref)}
        inner = [tree[w] for w in WRAPPERS if isinstance(tree.get(w), dict | Thing)]
        return own if own or not inner else flatten(inner[0])
    return members(tree, "", set()) if isinstance(tree, Thing) else {}


def members(module: Thing, prefix: str, seen: set[int]) -> dict[str, Ref]:
    """Parameters and buffers of a stored module, and of the modules inside it, each met once."""
    seen.add(id(module))
    state = module.state if isinstance(module.state, dict) else {}
    groups = [state[name] for name in ("_parameters", "_buffers", "_modules") if isinstance(state.get(name), dict)]
    found: dict[str, Ref] = {}
    for key, value in (item for group in groups or [state] for item in group.items()):
        if isinstance(value, Ref):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Thing) and id(value) not in seen:
            found |= members(value, f"{prefix}{key}.", seen)
    return found
