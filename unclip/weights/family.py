"""How a reader of other projects' weights is written: one `Family` a file, made of plain dictionaries.

A family is a set of public checkpoints that share their keys' names: OpenAI's CLIPs, Karlo's priors. Its file holds

- `signs`: a few keys of theirs that tell the family; a name of a file says nothing, its keys and shapes everything;
- `config`: from the shapes of theirs to a configuration of ours (`Schema.size` and `Schema.count` do the asking);
- `build`: our network's class;
- `names`: for a configuration, the dictionary ours → theirs. Both sides may hold fields in braces: `{i}` stands for a
  number, `{rest}` for all that follows, any other for one word, as in `"blocks.{i}.out.{p}": "resblocks.{i}.proj.{p}"`.
  Where more than a name differs, theirs is a `From`: `transposed("proj")`, `joined("q.{p}", "k.{p}", "v.{p}")`, or
  one's own pair of functions, there and back;
- `unused`: keys of theirs that a network has no use for;
- `published`: the members that are known, each with its configuration.

Everything else is done once, for all families, in `unclip/weights/match.py`: our network is built without memory, its
tensors are led *back* to theirs, and so each key that must be there is known with its shape before one is read.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError


class Spec(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str  # as torch names it: "float16"

    def __str__(self) -> str:
        return f"{list(self.shape)} {self.dtype}"


class Schema(dict[str, Spec]):
    """The keys of a file, and in `about` what else it brought: a neighbouring config.json, or how it was packed."""

    def __init__(self, specs: Mapping[str, Spec], about: Mapping[str, Any] | None = None):
        super().__init__(specs)
        self.about = dict(about or {})

    def size(self, key: str, axis: int = 0) -> int:
        """The length of one axis of a tensor of theirs."""
        if key not in self:
            raise UnclipError(f"{key!r} is missing")
        if axis >= len(self[key].shape):
            raise UnclipError(f"{key!r} is {self[key]}, expected {axis + 1} axes or more")
        return self[key].shape[axis]

    def holds(self, form: str) -> bool:
        """Whether there is a key of this form."""
        return form in self if "{" not in form else any(match(form, key) is not None for key in self)

    def count(self, form: str) -> int:
        """How many numbers stand where the form has `{i}`: the depth of a network.

        A form that ends in `{rest}` counts whole blocks, and so is not misled by a block that lacks a key.
        """
        return len({found["i"] for key in self if (found := match(form, key))})


Read = Callable[[str], Tensor]


class File(NamedTuple):
    """What a file says of its tensors, and how to get one by its key: a view of the mapped file.

    `forget` gives back the memory of what was looked at: views stay, and are read again when needed.
    """

    schema: Schema
    read: Read
    forget: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class From:
    """One tensor of ours out of some of theirs, and back again. With no theirs it is zeros: a bias they lack."""

    theirs: tuple[str, ...]
    there: Callable[..., Tensor]
    back: Callable[[Tensor], Iterable[Tensor]]

    def renamed(self, rename: Callable[[str], str]) -> "From":
        return From(tuple(map(rename, self.theirs)), self.there, self.back)


def same(key: str) -> From:
    return From((key,), lambda w: w, lambda w: [w])


def transposed(key: str) -> From:
    """x @ theirs is a linear layer of ours."""
    return From((key,), lambda w: w.mT, lambda w: [w.mT])


def led(key: str, axes: int = 1) -> From:
    """Ours has axes of one ahead of theirs."""
    return From((key,), lambda w: w[(None,) * axes], lambda w: [w[(0,) * axes]])


def trailed(key: str, axes: int = 1) -> From:
    """Theirs has axes of one behind ours: a convolution of one position that is a linear layer here."""
    return From((key,), lambda w: w[(..., *(0,) * axes)], lambda w: [w[(..., *(None,) * axes)]])


def joined(*keys: str) -> From:
    """Theirs one above the other, equal in height: q, k and v are one layer here."""
    return From(keys, lambda *w: torch.cat(w), lambda w: w.chunk(len(keys)))


FIELDS = {"i": r"\d+", "rest": r".+"}
NONE = From((), lambda: torch.zeros(()), lambda w: [])
Names = Mapping[str, str | From]


@dataclass(frozen=True)
class Family:
    name: str  # as a message calls it: "OpenAI CLIP"
    stage: str  # what it is to a system: "clip", "prior", "decoder", "upsampler", "classifier", "autoencoder"
    signs: tuple[str, ...]
    config: Callable[[Schema], Any]
    build: Callable[[Any], nn.Module]
    names: Callable[[Any], Names]
    unused: tuple[str, ...] = ()
    published: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""  # of the weights as published
    named_only: bool = False  # its keys and shapes are another family's as well: it must be named


@cache
def pattern(text: str) -> re.Pattern[str]:
    """ "a.{i}.{p}" → a regular expression with the groups i, a number, and p, a word."""
    parts = re.split(r"\{(\w*)\}", text)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = (f"(?P<{name}>{FIELDS.get(name, '[^.]+')})" for name in parts[1::2])
    return re.compile("".join(parts))


def match(text: str, key: str) -> dict[str, str] | None:
    """The values of the pattern's fields, if the key has its form."""
    found = pattern(text).fullmatch(key)
    return found.groupdict() if found else None


def sources(names: Names, ours: Iterable[str]) -> dict[str, From]:
    """For each key of ours, what it is made of, with the fields of the patterns filled in."""
    found: dict[str, From] = {}
    for key in ours:
        for form, theirs in [(key, names[key])] if key in names else names.items():  # most often it stands there
            if (fields := match(form, key)) is not None:
                way = same(theirs) if isinstance(theirs, str) else theirs
                found[key] = way.renamed(lambda text, fields=fields: text.format(**fields))
                break
        else:
            raise KeyError(f"no name is given for {key!r}")  # a reader's defect, not a user's
    return found
