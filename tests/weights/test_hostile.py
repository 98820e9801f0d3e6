"""Files made to do harm, and files that are damaged: nothing is run, one clear error, memory bounded."""

import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from unclip.errors import UnclipError
from unclip.weights.container import open_file
from unclip.weights.load import fit

STATE = OrderedDict(w=torch.arange(6.0).view(2, 3), b=torch.ones(3, dtype=torch.float16))


class Runs:
    """Pickled, it asks to be made by calling `what`."""

    def __init__(self, what, *words):
        self.what, self.words = what, words

    def __reduce__(self):
        return self.what, self.words


def saved(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def rewritten(data: bytes, changes: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with some members changed, by the end of their names."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compress) as new:
        for name in old.namelist():
            new.writestr(name, next((v for end, v in changes.items() if name.endswith(end)), old.read(name)))
    return out.getvalue()


def safetensors(header: object, body: bytes = bytes(24)) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), buffer)
    return buffer.getvalue()


def pickled(*instructions: bytes) -> bytes:
    return rewritten(saved(STATE), {"data.pkl": b"\x80\x02" + b"".join(instructions) + b"."})


def name(module: str, word: str) -> bytes:
    return f"c{module}\n{word}\n".encode()


STORAGE = b"(X\x07\x00\x00\x00storage" + name("torch", "FloatStorage") + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQ"
REBUILD = name("torch._utils", "_rebuild_tensor_v2") + b"("


def one_tensor(count: int, offset: int, shape: bytes, stride: bytes) -> bytes:
    """A state dict of one tensor, described as one likes."""
    storage = STORAGE.replace(b"%c", bytes([count]))
    tensor = REBUILD + storage + b"K" + bytes([offset]) + shape + stride + b"\x89}tR"
    return pickled(b"}X\x01\x00\x00\x00w" + tensor + b"s")


FLAG = Path("/tmp") / f"unclip-hostile-{os.getpid()}"
HARM = {
    "os.system in a state dict": saved({**STATE, "x": Runs(os.system, f"touch {FLAG}")}),
    "os.system before zip": saved({"x": Runs(os.system, f"touch {FLAG}")}, _use_new_zipfile_serialization=False),
    "eval": saved({"state_dict": STATE, "x": Runs(eval, f"open({str(FLAG)!r}, 'w')")}),
    "getattr": saved(Runs(getattr, "x", "y")),
    "a bare pickle": pickle.dumps(Runs(os.system, f"touch {FLAG}")) + bytes(99),
    "a foreign global in TorchScript": rewritten(script(), {"data.pkl": pickle.dumps(Runs(os.system, "x"))}),
    "a class of the standard library": pickled(name("subprocess", "Popen"), b"(tR"),
    "a name that hides its parts": pickled(b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93)R"),
    "a name that is no text": pickled(b"]]\x93)R"),
    "an extension by number": pickled(b"\x82\x01)R"),
    "an old instance": pickled(b"(ios\nsystem\n"),
    "torch's own loader": pickled(name("torch.serialization", "load"), b"X\x01\x00\x00\x00xtR"),
    "a function of torch": pickled(name("torch", "save")),
    "a memo of four thousand million": pickled(b"]r\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff"),
    "a state dict within itself": pickled(b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s"),
    "a tuple 400,000 deep as key": pickled(b"}", b")" + b"\x85" * 400_000, b"Ns"),
    "lists without number": pickled(b"]" * 1_000_000),
    "no end": pickled()[:-1],
    "an empty stack": pickled(b"\x85"),
    "nothing put on a list": pickled(b"Na"),
    "a bomb": rewritten(saved({"w": torch.zeros(1 << 20)}), {}, zipfile.ZIP_DEFLATED),
    "a bomb of a description": rewritten(saved(STATE), {"data.pkl": bytes(1 << 25)}, zipfile.ZIP_DEFLATED),
    "a large description": rewritten(saved(STATE), {"data.pkl": b"\x80\x02" + b"N0" * (1 << 24)}),
    "numbers missing": rewritten(saved(STATE), {"data/0": b""}),
    "big-endian numbers": rewritten(saved(STATE), {"byteorder": b"big"}),
    "a tensor longer than its storage": one_tensor(6, 0, b"K\x07\x85", b"K\x01\x85"),
    "a tensor behind its storage": one_tensor(6, 6, b"K\x01\x85", b"K\x01\x85"),
    "a stride out of the storage": one_tensor(6, 0, b"K\x02\x85", b"K\x06\x85"),
    "a place shown a thousand times": one_tensor(1, 0, b"M\xe8\x03\x85", b"K\x00\x85"),
    "a negative size": one_tensor(6, 0, b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
    "a negative stride": one_tensor(6, 5, b"K\x02\x85", b"J\xff\xff\xff\xff\x85"),
    "more strides than sizes": one_tensor(6, 0, b"K\x02\x85", b"K\x01K\x01\x86"),
    "a size that is no number": one_tensor(6, 0, b"N\x85", b"K\x01\x85"),
    "a storage larger than its member": one_tensor(200, 0, b"K\xc8\x85", b"K\x01\x85"),
    "a zip of nothing": rewritten(saved(STATE), {})[:30],
    "an old tar": b"x" * 257 + b"ustar" + bytes(300),
    "safetensors: a header beyond the file": struct.pack("<Q", 1 << 40) + b"{}" + bytes(99),
    "safetensors: a tensor cut off": safetensors({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "safetensors: sizes that disagree": safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 24]}}),
    "safetensors: a size of 2^63": safetensors({"w": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 24]}}),
    "safetensors: a place twice": safetensors(
        {k: {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]} for k in ("v", "w")}
    ),
    "safetensors: deep": safetensors(b'{"a":' * 100_000),
    "safetensors: a name twice": safetensors(
        b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"w":{"dtype":"F32","shape":[3],"data_offsets":[12,24]}}'
    ),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_harm(tmp_path, harm):
    """Under a name that promises another kind: not loaded, nothing run, nothing imported, a line that names it."""
    path, known = tmp_path / ("x.pt" if harm.startswith("safetensors") else "x.safetensors"), set(sys.modules)
    path.write_bytes(HARM[harm])
    with pytest.raises(UnclipError) as e:
        fit(path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500 + len(str(path))
    assert not FLAG.exists()
    assert not {"subprocess", "nt"} & (set(sys.modules) - known)


def test_what_it_would_run_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(HARM["os.system in a state dict"])
    with pytest.raises(UnclipError, match=r"it names '(posix|nt)\.system', .* nothing was run, do not trust it"):
        open_file(tmp_path / "x.safetensors")


def test_code_beside_weights_is_left_alone(tmp_path):
    """A folder's Python files, and a config.json that asks for them, are not looked at."""
    (tmp_path / "model.safetensors").write_bytes(save(dict(STATE)))
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    (tmp_path / "evil.py").write_text(f"open({str(FLAG)!r}, 'w')")
    with pytest.raises(UnclipError, match="is of no family that is known here"):
        fit(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../etc/passwd"}}))
    with pytest.raises(UnclipError, match="names files elsewhere"):
        fit(tmp_path)
    assert not FLAG.exists()


def test_every_length_of_a_header_is_read(tmp_path):
    """One of 32 begins with the byte that a pickle begins with."""
    for n in range(64):
        (tmp_path / "x").write_bytes(save({"w" * (1 + 4 * n): torch.ones(2)}))
        assert len(open_file(tmp_path / "x").schema) == 1


SOUND = {
    "safetensors": save(dict(STATE)),
    "zip": saved({"state_dict": STATE, "epoch": 1}),
    "before zip": saved(STATE, _use_new_zipfile_serialization=False),
    "script": script(),
    "module": saved(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One flipped bit, some random bytes, a cut, a repetition, or a large number where there was another."""
    changed, at = bytearray(data), rng.randrange(len(data))
    how = rng.randrange(5)
    if how == 0:
        changed[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        changed[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))
    elif how == 2:
        del changed[at:]
    elif how == 3:
        changed[at:at] = changed[at : at + rng.randrange(1, 64)]
    else:
        changed[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"])
    return bytes(changed)


def survive(path: Path, count: int, seed: int) -> None:
    """Every mutation is read or refused with our error; what is read has the shapes that were announced."""
    rng = random.Random(seed)
    for _ in range(count):
        path.write_bytes(mutated(rng.choice(list(SOUND.values())), rng))
        with suppress(UnclipError):
            file = open_file(path)
            for key, spec in file.schema.items():
                with suppress(UnclipError):
                    assert tuple(file.read(key).shape) == spec.shape


def test_mutations(tmp_path):
    survive(tmp_path / "x", 1_000, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutations(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    survive(tmp_path / "x", 100_000, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # kilobytes
