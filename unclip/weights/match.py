"""Which family a file belongs to, and whether it is whole: every key used once, none left over, each of its shape.

All is settled from names, shapes and types, on the meta device, before a tensor is read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unclip.errors import UnclipError
from unclip.weights.checkpoint import Unfilled
from unclip.weights.config import to_dict, unknown
from unclip.weights.family import Family, From, Schema, Spec, match, sources

FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Match:
    """A file's family with the network that it fills: still without memory."""

    family: Family
    member: str  # the published model of these sizes, or ""
    config: Any
    net: nn.Module
    sources: Mapping[str, From]  # ours → theirs
    wanted: Mapping[str, Spec]  # theirs

    @property
    def title(self) -> str:
        return f"{self.family.name} {self.member}".rstrip()


def prepare(family: Family, config: Any, member: str = "") -> Match:
    """Build the network on the meta device, and lead its tensors back to what they must be in the file."""
    with torch.device("meta"), Unfilled():
        net = family.build(config).requires_grad_(False).eval()
    ours = net.state_dict()
    ways = sources(family.names(config), ours)
    wanted: dict[str, Spec] = {}
    for key, way in ways.items():
        for name, tensor in zip(way.theirs, way.back(ours[key]), strict=True):
            wanted[name] = Spec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    return Match(family, member, config, net, ways, wanted)


def faults(found: Schema, m: Match) -> list[str]:
    """What keeps a file from being this network: a line for each key, none when it fits exactly."""
    lines = [f"{key!r} is missing, expected {spec}" for key, spec in m.wanted.items() if key not in found]
    common = usual(found)
    for key, spec in found.items():
        if key not in m.wanted:
            if not any(match(form, key) is not None for form in m.family.unused):
                lines.append(f"{key!r} {spec} is left over, expected no such key")
            continue
        shape, dtype = m.wanted[key]
        # Half precision is often kept for matrices alone; one odd tensor in a file of float32 is a mistake.
        types = (common, "float32") if dtype in FLOATS else (dtype,)
        if spec.shape != shape or spec.dtype not in types:
            lines.append(f"{key!r} is {spec}, expected {Spec(shape, types[0])}")
    return lines


def usual(found: Schema) -> str:
    """The type that most matrices of a file have."""
    counts = Counter(s.dtype for s in found.values() if len(s.shape) > 1 and s.dtype in FLOATS)
    return counts.most_common(1)[0][0] if counts else "float32"


def leaves(config: Any, path: str = "") -> dict[str, Any]:
    """A configuration as one flat dictionary, dotted name → value."""
    if isinstance(config, dict):
        return {k: v for name, inner in config.items() for k, v in leaves(inner, f"{path}.{name}").items()}
    return {path: config}


def distance(one: Any, other: Any) -> int:
    """In how many settings two configurations differ."""
    a, b = leaves(to_dict(one)), leaves(to_dict(other))
    return sum(a.get(k, ()) != b.get(k, ()) for k in a.keys() | b.keys())


def score(found: Schema, family: Family) -> int:
    """Signs that are there, less those that are not."""
    return sum(1 if any(match(sign, key) is not None for key in found) else -1 for sign in family.signs)


def ranked(found: Schema, families: Iterable[Family]) -> list[Family]:
    """Those of which more signs are there than not, the likeliest first."""
    share = {f.name: score(found, f) / len(f.signs) for f in families}
    return sorted((f for f in families if share[f.name] > 0), key=lambda f: (-share[f.name], -len(f.signs)))


def examine(found: Schema, family: Family) -> tuple[Match | None, list[str]]:
    """The network of this family that a file fills, or the faults beside the one it comes closest to."""
    members = family.published
    try:
        config = family.config(found)
        nearest = min(members, key=lambda name: distance(members[name], config), default=None)
        near = distance(members[nearest], config) if nearest is not None else 9
        m = prepare(family, config, nearest or "" if near == 0 else "")
    except (UnclipError, ArithmeticError, LookupError, ValueError, TypeError, RuntimeError) as e:
        told = str(e).splitlines()[0] if str(e) else f"sizes that make no network ({type(e).__name__})"
        every = [prepare(family, config, name) for name, config in members.items()]  # what is missing misled it
        m = min(every, key=lambda m: len(faults(found, m)), default=None)
        return (m, lines) if m and len(lines := faults(found, m)) < len(m.wanted) // 2 else (None, [told])
    lines = faults(found, m)
    if near == 0 or (not lines and near > 3):
        return m, lines
    # A key of the wrong size misleads what is derived from it; and a file that is a published model in all but one
    # key is that model, damaged.
    known = prepare(family, members[nearest], nearest) if nearest is not None else m
    others = faults(found, known)
    if not lines:
        return (known, others) if len(others) == 1 else (m, lines)
    return (known, others) if near == 1 or len(others) < len(lines) else (m, lines)


def recognise(found: Schema, families: Sequence[Family], name: str, only: str | None = None) -> Match:
    """The family and member of a file, fitted exactly. Raises UnclipError naming the key, what was expected, what was
    found, and the family it looks like."""
    if only is not None and only not in [f.name for f in families]:
        raise unknown(only, [f.name for f in families], "family")
    families = [f for f in families if f.name == only or (only is None and not f.named_only)]
    likely = (ranked(found, families) if only is None else families)[:4]
    if not likely:
        shown = ", ".join(map(repr, list(found)[:3])) or "none"
        raise UnclipError(f"{name!r} is of no family that is known here; its {len(found)} keys begin with {shown}")
    best: tuple[tuple[bool, int], str] | None = None
    for family in likely:
        m, lines = examine(found, family)
        if m is not None and not lines:
            return m
        title = m.title if m else family.name
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        rank = (m is None, len(lines))
        if best is None or rank < best[0]:
            best = rank, f"{name!r} looks like {title}, but {lines[0]}{more}; fetch it again"
        if m is not None and m.member and len(lines) == 1:
            break  # a published model but for one key is no unpublished one of another family
    assert best is not None
    raise UnclipError(best[1])


def used(found: Schema, m: Match) -> int:
    """How many keys of a file a network takes, or knowingly leaves."""
    return sum(key in m.wanted or any(match(form, key) is not None for form in m.family.unused) for key in found)


def fits(m: Match, families: Iterable[Family]) -> list[str]:
    """Published networks of other stages whose embedding space is as wide: only of one CLIP do they belong together."""
    width = getattr(m.config, "embed", None)
    found = (f"{f.name} {name}".rstrip() for f in families if f.stage != m.family.stage
             for name, config in f.published.items() if width is not None and getattr(config, "embed", None) == width)
    return list(found)  # fmt: skip
