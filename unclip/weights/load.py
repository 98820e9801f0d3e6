"""From a file or folder of any known format to a network that computes."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.weights import hub
from unclip.weights.checkpoint import CONFIG, WEIGHTS, aligned, give, load_module
from unclip.weights.config import from_dict, read_json
from unclip.weights.container import open_file
from unclip.weights.families import FAMILIES
from unclip.weights.family import File, Schema
from unclip.weights.match import Match, recognise
from unclip.weights.scheduler import Scheduler

# Where the folders of other projects keep a network and what they say of it. What a file is, its content tells.
NETWORKS = (WEIGHTS, "diffusion_pytorch_model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin",
            "diffusion_pytorch_model.bin", "open_clip_pytorch_model.bin")  # fmt: skip
INDEXES = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")  # of several files
SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-\d{5}\.safetensors")
CONFIGS = (CONFIG, "open_clip_config.json")


def open_source(source: str | Path) -> File:
    """A file of weights, or the folder of one network."""
    folder = Path(source)
    if not folder.is_dir():
        return open_file(folder)
    about = next(({"config": read_json(folder / name)} for name in CONFIGS if (folder / name).is_file()), {})
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index is not None:
        shards = read_json(index).get("weight_map", {})
        if not isinstance(shards, dict) or any(Path(str(name)).name != name for name in shards.values()):
            raise UnclipError(f"{str(index)!r} names files elsewhere; fetch it again")
        files = {name: open_file(folder / name) for name in sorted(set(shards.values()))}
        specs = {key: spec for file in files.values() for key, spec in file.schema.items()}
        owner = {key: file for file in files.values() for key in file.schema}
        forget = partial(forget_all, list(files.values()))
        return File(Schema(specs, about), lambda key: owner[key].read(key), forget)
    for name in NETWORKS:
        if (folder / name).is_file():
            file = open_file(folder / name)
            return file._replace(schema=Schema(file.schema, file.schema.about | about))
    if any(folder.glob(f"*/{CONFIG}")):
        raise UnclipError(f"{str(folder)!r} holds networks in folders of their own, but no {hub.INDEX} of a system "
                          "that is known here: copy it to them, or name one of them")  # fmt: skip
    raise UnclipError(f"{str(folder)!r} holds none of {', '.join(NETWORKS)}; name the folder of one network, or a file")


def forget_all(files: Iterable[File]) -> None:
    for file in files:
        file.forget()


def together(folder: Path, *parts: str) -> File:
    """Networks in folders of a pipeline as one file."""
    files = {part: open_source(folder / part) for part in parts}
    specs = {f"{part}.{key}": spec for part, file in files.items() for key, spec in file.schema.items()}
    about = {part: file.schema.about.get("config") for part, file in files.items()}

    def read(key: str) -> Tensor:
        part, _, theirs = key.partition(".")
        return files[part].read(theirs)

    return File(Schema(specs, about), read, lambda: forget_all(files.values()))


def fit(source: str | Path, family: str | None = None) -> tuple[Match, File]:
    """The family of a file or folder, and the network that it fills: nothing has been read yet but names and shapes."""
    file = open_source(source)
    return recognise(file.schema, FAMILIES, str(source), family), file


def load(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    family: str | None = None,
) -> nn.Module:
    """One network from a public checkpoint or from a folder of ours, in evaluation mode; `.config` says what it is.

    family: named where two look alike, as OpenAI's ViT-L/14 and open_clip's do. Raises UnclipError for a file that is
    damaged, of no known family, or does not fit its family exactly. Nothing in a file is executed.
    """
    ours = Path(source) / CONFIG
    kind = read_json(ours).get("kind") if ours.is_file() else None
    known: dict[str, Any] = {type(c).__name__: (type(c), f.build) for f in FAMILIES for c in f.published.values()}
    if isinstance(kind, str) and kind in known:
        return load_module(source, *known[kind])[0].to(device, dtype)
    m, file = fit(source, family)
    net = fill(m, file.read, dtype, file.forget)
    return net if torch.device(device).type == "cpu" else net.to(device)  # which cannot move what is read later


def fill(
    m: Match,
    read: Callable[[str], Tensor],
    dtype: torch.dtype = torch.float32,
    forget: Callable[[], object] = lambda: None,
) -> nn.Module:
    """The matched network with its tensors, floating ones as `dtype`; `read` gives a tensor of theirs by its key.

    One tensor is worked on at a time: memory beyond the network's own is that of the largest.
    """
    expected = m.net.state_dict()

    def tensor(ours: str) -> Tensor:
        way, shape = m.sources[ours], expected[ours].shape
        kind = dtype if expected[ours].is_floating_point() else expected[ours].dtype
        theirs = [read(key) for key in way.theirs]
        found = way.there(*theirs).reshape(shape) if theirs else way.there().expand(shape)
        found = aligned(found.to(kind).contiguous())
        del theirs
        forget()
        return found

    give(m.net, tensor)
    return m.net.requires_grad_(False).eval()


Kinds = Mapping[str, tuple[type, Callable[..., nn.Module]]]  # of parts, by their names: configuration and network


class Saved(NamedTuple):
    """What a folder of ours holds: its name, 10 hex digits that stand for its files, the networks, and how they are
    sampled where they do not say it themselves."""

    name: str
    digest: str
    parts: dict[str, Any]
    schedulers: dict[str, Scheduler]

    def scheduler(self, part: str) -> Scheduler:
        if part not in self.schedulers:
            raise UnclipError(f"{self.name!r} does not say how its {part} is sampled; convert it again")
        return self.schedulers[part]


def saved(folder: Path, names: Kinds, needed: Iterable[str], read: Callable[[Path, str], Any] | None = None) -> Saved:
    """The networks of a folder that `UnCLIP.save_pretrained` wrote, its files checked against the sha256 noted then.

    names: of parts that may be there; read(folder, name) reads one. Those that few need may lie beside, in FOLDER_more.
    Raises UnclipError where one of those `needed` is missing or a file is not what was written.
    """
    index = hub.check_index(read_json(folder / hub.INDEX), folder)
    read = read or (lambda folder, name: load_module(folder / name, *names[name])[0])
    for name in needed:
        if name not in index["parts"]:
            fix = "convert it again" if "system" in index else f"train it: unclip train mini.{name}"
            raise UnclipError(f"{str(folder)!r} lacks the part {name!r}; {fix}")
    there = [name for name in names if name in index["parts"]]
    digest = hub.verify(folder, index, [*there, "tokenizer"])
    parts, beside = {name: read(folder, name) for name in there}, folder.with_name(f"{folder.name}_more")
    if (beside / hub.INDEX).is_file():
        more = hub.check_index(read_json(beside / hub.INDEX), beside)
        others = [name for name in names if name in more["parts"] and name not in parts]
        hub.verify(beside, more, others)
        parts |= {name: read(beside, name) for name in others}
    schedulers = {name: from_dict(Scheduler, s, f"scheduler {name}") for name, s in index["schedulers"].items()}
    return Saved(index["name"], digest, parts, schedulers)
