"""What a file holds, told from its bytes: safetensors, torch's archives old and new, TorchScript, TensorFlow's.

A tensor is described before it is read, and read from the mapped file when asked for. Nothing in a file is executed.
"""

import json
import math
import mmap
import struct
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from unclip.errors import UnclipError
from unclip.weights import pickles
from unclip.weights.checkpoint import TYPES
from unclip.weights.family import File, Schema, Spec
from unclip.weights.pickles import Ref, flatten, judged
from unclip.weights.tensorflow import INDEX_END, dropped, mapped, open_index

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch.save once began with
LARGEST_PICKLE = 16 << 20


def open_file(path: str | Path) -> File:
    """Raises UnclipError for what cannot be read, is damaged, is of another kind, or names what weights do not need."""
    path, name = Path(path), str(path)
    if not path.exists() and path.with_name(f"{path.name}.index").is_file():
        path = path.with_name(f"{path.name}.index")  # what TensorFlow calls a checkpoint is no file
    try:
        with open(path, "rb") as f:
            head = f.read(265)
            if len(head) < 8:
                raise UnclipError(f"{name!r} is empty or cut off ({len(head)} bytes); fetch it again")
            f.seek(max(path.stat().st_size - len(INDEX_END), 0))
            tail = f.read(len(INDEX_END))
            with judged(name):
                if tail == INDEX_END:
                    return open_index(path)
                if head.startswith(b"PK"):
                    return open_zip(f, mapped(path))
                if head.startswith(LEGACY):
                    return open_legacy(mapped(path))
    except OSError as e:
        raise UnclipError(f"cannot read {name!r}: {e.strerror or e}") from e
    # The length of safetensors' header may begin with a pickle's byte; what follows its eight bytes is a brace.
    if (head[:1] == b"\x80" and head[8:9] != b"{") or head[257:262] == b"ustar":
        raise UnclipError(f"{name!r} is a pickle or an archive of before 2017, which are not read; save it again")
    return open_safetensors(path)


def open_safetensors(path: Path) -> File:
    """The library judges the file; where each tensor lies is then read from its header."""
    try:
        with safetensors.safe_open(path, "pt") as handle:
            about = handle.metadata()
        memory = mapped(path)
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror or e}") from e
    except safetensors.SafetensorError as e:
        raise UnclipError(f"{str(path)!r} is damaged, or no file of weights: {e}; fetch it again") from e
    body = 8 + int.from_bytes(memory[:8], "little")
    entries = {k: v for k, v in json.loads(memory[8:body]).items() if k != "__metadata__"}
    specs = {k: Spec(tuple(v["shape"]), TYPES.get(v["dtype"], str(v["dtype"]))) for k, v in entries.items()}

    def read(key: str) -> Tensor:
        shape, kind = specs[key]
        dtype, begin = getattr(torch, kind), body + entries[key]["data_offsets"][0]
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=begin).view(shape)

    return File(Schema(specs, about), read, partial(dropped, memory))


def described(refs: dict[str, Ref], places: dict[str, int], memory: mmap.mmap, about: dict[str, Any]) -> File:
    """Tensors by reference, and the place in memory of each storage."""
    for key, ref in refs.items():
        if ref.storage.key not in places:
            raise ValueError(f"the numbers of {key[:80]!r} are not in it")

    def read(key: str) -> Tensor:
        ref = refs[key]
        dtype = getattr(torch, ref.storage.dtype)
        if 0 in ref.shape or not ref.storage.count:
            return torch.empty(ref.shape, dtype=dtype)
        flat = torch.frombuffer(memory, dtype=dtype, count=ref.storage.count, offset=places[ref.storage.key])
        return flat.as_strided(ref.shape, ref.stride, ref.offset)

    schema = Schema({key: Spec(ref.shape, ref.storage.dtype) for key, ref in refs.items()}, about)
    return File(schema, read, partial(dropped, memory))


def size(storage: pickles.Storage) -> int:
    """Bytes of a storage."""
    return storage.count * getattr(torch, storage.dtype).itemsize


def open_zip(f: Any, memory: mmap.mmap) -> File:
    """What torch.save writes, or torch.jit.save: a pickle and the numbers of each storage, all uncompressed."""
    try:
        entries = {entry.filename: entry for entry in zipfile.ZipFile(f).infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as e:
        raise ValueError(str(e)) from e
    root = next((n.removesuffix("data.pkl") for n in entries if n.count("/") == 1 and n.endswith("/data.pkl")), None)
    if root is None:
        raise ValueError("a zip archive without data.pkl")

    def place(entry: zipfile.ZipInfo) -> int:
        """Where its bytes begin. Only what is stored as it is can be mapped, and cannot be a bomb."""
        start = entry.header_offset
        if entry.compress_type or entry.compress_size != entry.file_size or memory[start : start + 4] != b"PK\3\4":
            raise ValueError(f"{entry.filename[:80]!r} is compressed or misplaced")
        start += 30 + sum(struct.unpack("<HH", memory[start + 26 : start + 30]))
        if start + entry.file_size > len(memory):
            raise ValueError(f"{entry.filename[:80]!r} is cut off")
        return start

    order = entries.get(f"{root}byteorder")
    if order and memory[place(order) : place(order) + 3] != b"lit":
        raise ValueError("numbers in big-endian order")
    main = entries[f"{root}data.pkl"]
    if main.file_size > LARGEST_PICKLE:
        raise ValueError(f"a description of {main.file_size} bytes")
    begin = place(main)
    refs = flatten(pickles.read(BytesIO(memory[begin : begin + main.file_size])))
    places = {}
    for storage in {ref.storage for ref in refs.values()}:
        entry = entries.get(f"{root}data/{storage.key}")
        if entry is not None:
            if entry.file_size < size(storage):
                raise ValueError(f"a storage of {size(storage)} bytes in {entry.file_size}")
            places[storage.key] = place(entry)
    script = f"{root}constants.pkl" in entries
    return described(refs, places, memory, {"torchscript": True} if script else {})


def open_legacy(memory: mmap.mmap) -> File:
    """What torch.save wrote before version 1.6: five pickles, then the numbers of each storage after their count."""
    for _ in range(3):
        pickles.read(memory)  # a magic number, the version, and facts on the machine
    storages: dict[str, pickles.Storage] = {}
    refs, keys = flatten(pickles.read(memory, storages)), pickles.read(memory)
    at, places = memory.tell(), {}
    if not isinstance(keys, list):
        raise ValueError("no list of storages")
    for key in keys:
        if key not in storages:
            raise ValueError("a storage that no tensor is in")
        (count,) = struct.unpack("<q", memory[at : at + 8])
        places[key], storage = at + 8, storages[key]
        at += 8 + size(storage)
        if count != storage.count or at > len(memory):
            raise ValueError(f"a storage of {storage.count} numbers that is cut off or holds {count}")
    return described(refs, places, memory, {})


def read_schema(path: str | Path) -> Schema:
    """Keys, shapes and types as JSON tells them: {"keys": {key: [shape, dtype]}}, or the inner part alone."""
    try:
        data = json.loads(Path(path).read_bytes())
        keys = data.get("keys", data)
        specs = {str(k): Spec(tuple(int(n) for n in v[0]), str(v[1]).removeprefix("torch.")) for k, v in keys.items()}
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror or e}") from e
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        raise UnclipError(f"{str(path)!r} is no schema: {e}; it is JSON of {{key: [shape, dtype]}}") from e
    return Schema(specs)
