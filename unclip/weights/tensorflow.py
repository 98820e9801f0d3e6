"""TensorFlow's checkpoints (`NAME.index` beside `NAME.data-00000-of-00032`), read without TensorFlow.

The index is a LevelDB table of plain records: key → data type, shape, shard, offset, size. Of its protocol buffers only
the fields that say this are read; the tensors are then views of the mapped shards.
"""

import math
import mmap
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from unclip.weights.family import File, Schema, Spec

INDEX_END = bytes.fromhex("57fb808b247547db")  # the last eight bytes of the table
TYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 10: "bool", 14: "bfloat16",
         19: "float16"}  # fmt: skip
LARGEST_INDEX, LONGEST_KEY, MOST_RECORDS = 2 << 20, 512, 100_000


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where the next thing begins."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """A protocol buffer's fields: number, and an integer or bytes."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            length, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError("a field that is cut off")
        yield tag >> 3, value


def block(data: bytes, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of the block at `place`: keys share their beginnings with the one before."""
    offset, at = varint(place, 0)
    size, _ = varint(place, at)
    part = data[offset : offset + size + 5]
    if len(part) != size + 5 or part[size] != 0:
        raise ValueError("a block that is cut off or compressed")
    restarts = int.from_bytes(part[size - 4 : size], "little")
    end, at, key = size - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = varint(part, at)
        fresh, at = varint(part, at)
        length, at = varint(part, at)
        if shared + fresh > LONGEST_KEY:
            raise ValueError("a name that is too long")
        key = key[:shared] + part[at : at + fresh]
        at += fresh
        yield key, part[at : at + length]
        at += length


def entry(record: bytes) -> tuple[Spec, int, int, int]:
    """A record of the index → type and shape, shard, offset, size."""
    found: dict[int, int] = {1: 0, 3: 0, 4: 0, 5: 0}
    shape: list[int] = []
    for number, value in fields(record):
        if number == 2 and isinstance(value, bytes):
            for inner, axis in fields(value):
                if inner == 2 and isinstance(axis, bytes):
                    shape.append(next((int(v) for n, v in fields(axis) if n == 1 and isinstance(v, int)), 0))
        elif number == 7:
            raise ValueError("a tensor in slices")
        elif number in found and isinstance(value, int):
            found[number] = value
    if found[1] not in TYPES or len(shape) > 8 or any(n >= 2**48 for n in shape):
        raise ValueError(f"a tensor of unknown type {found[1]}, or of no size")
    return Spec(tuple(shape), TYPES[found[1]]), found[3], found[4], found[5]


def open_index(path: Path) -> File:
    """The tensors of all shards beside an index; to be called within `judged`."""
    if path.stat().st_size > LARGEST_INDEX:
        raise ValueError(f"an index of {path.stat().st_size} bytes")
    data = path.read_bytes()
    at = len(data) - 48  # the footer: the places of two blocks, of which the second lists the blocks of records
    if at < 0:
        raise ValueError("an index without a footer")
    for _ in range(2):
        _, at = varint(data, at)
    places = block(data, data[at:])
    records = dict(islice((record for _, place in places for record in block(data, place)), MOST_RECORDS))
    shards = next((int(v) for n, v in fields(records.pop(b"", b"")) if n == 1 and isinstance(v, int)), 1)
    entries = {key.decode(): entry(record) for key, record in records.items()}

    base, numbers = path.name.removesuffix(".index"), {shard for _, shard, _, _ in entries.values()}
    memories = {n: mapped(path.with_name(f"{base}.data-{n:05d}-of-{shards:05d}")) for n in numbers}
    for key, (spec, shard, offset, size) in entries.items():
        if size != math.prod(spec.shape) * getattr(torch, spec.dtype).itemsize or offset + size > len(memories[shard]):
            raise ValueError(f"{key[:80]!r} {spec} is cut off or of another size")

    def read(key: str) -> Tensor:
        spec, shard, offset, _ = entries[key]
        dtype, count = getattr(torch, spec.dtype), math.prod(spec.shape)
        if not count:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.frombuffer(memories[shard], dtype=dtype, count=count, offset=offset).view(spec.shape)

    def forget() -> None:
        for memory in memories.values():
            dropped(memory)

    return File(Schema({key: e[0] for key, e in entries.items()}), read, forget)


def mapped(path: Path) -> mmap.mmap:
    """A file as memory, paged in when looked at; what is written there stays private."""
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)


def dropped(memory: mmap.mmap) -> None:
    """Give its pages back. Without it a mapped file counts as memory beside what was made of it."""
    if hasattr(mmap, "MADV_DONTNEED") and sys.platform == "linux":
        memory.madvise(mmap.MADV_DONTNEED)
