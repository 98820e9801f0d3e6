"""Which family a file belongs to, and whether it is whole: every key used once, none left over, each of its shape.

All is settled from names, shapes and types, on the meta device, before a tensor is read.
"""

import re
from collections import Counter, defaultdict
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
    common, odd = usual(found), odd_ones(found)
    for key, spec in found.items():
        if key not in m.wanted:
            if not any(match(form, key) is not None for form in m.family.unused):
                lines.append(f"{key!r} {spec} is left over, expected no such key")
            continue
        shape, dtype = m.wanted[key]
        # Half precision is often kept for matrices alone; one odd tensor among others of its kind is a mistake.
        types = (odd.get(key, common), odd.get(key, "float32")) if dtype in FLOATS else (dtype,)
        if spec.shape != shape or spec.dtype not in types:
            lines.append(f"{key!r} is {spec}, expected {Spec(shape, types[0])}")
    return lines


def usual(found: Schema) -> str:
    """The type that most matrices of a file have."""
    counts = Counter(s.dtype for s in found.values() if len(s.shape) > 1 and s.dtype in FLOATS)
    return counts.most_common(1)[0][0] if counts else "float32"


def odd_ones(found: Schema) -> dict[str, str]:
    """Of tensors whose names differ in numbers alone the one whose type differs: key → the type of the rest."""
    kinds: dict[tuple[str, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, spec in found.items():
        kinds[re.sub(r"\d+", "#", key), len(spec.shape)][spec.dtype].append(key)
    pairs = (sorted(kind.items(), key=lambda pair: len(pair[1])) for kind in kinds.values() if len(kind) == 2)
    return {few[0]: dtype for (_, few), (dtype, many) in pairs if len(few) == 1 and len(many) > 2}


def leaves(config: Any, path: str = "") -> dict[str, Any]:
    """A configuration as one flat dictionary, dotted name → value."""
    if isinstance(config, dict):
        return {k: v for name, inner in config.items() for k, v in leaves(inner, f"{path}.{name}").items()}
    return {path: config}


def distance(one: Any, other: Any) -> int:
    """In how many settings two configurations differ, of those that shapes may tell."""
    a, b = leaves(to_dict(one)), leaves(to_dict(other))
    return sum(a.get(k, ()) != b.get(k, ()) for k in a.keys() | b.keys() if not k.startswith(".diffusion."))


def score(found: Schema, family: Family) -> int:
    """Signs that are there, less those that are not."""
    return sum(1 if found.holds(sign) else -1 for sign in family.signs)


def ranked(found: Schema, families: Iterable[Family]) -> list[Family]:
    """Those of which more signs are there than not, the likeliest first."""
    share = {f.name: score(found, f) / len(f.signs) for f in families}
    return sorted((f for f in families if share[f.name] > 0), key=lambda f: (-share[f.name], -len(f.signs)))


def examine(found: Schema, family: Family) -> tuple[Match | None, list[str]]:
    """The network of this family that a file fills, or the faults beside the one it comes closest to.

    A key that is missing or of the wrong size can mislead what is derived from it: where that does not fit, or hardly
    differs from a published model, the published ones are tried as well. A file that is one of them in all but one key
    is that model, damaged.
    """
    try:
        config = family.config(found)
        near = {name: distance(known, config) for name, known in family.published.items()}
        member = min(near, key=lambda name: near[name], default="")
        m = prepare(family, config, member if near.get(member) == 0 else "")
    except (UnclipError, ArithmeticError, LookupError, ValueError, TypeError, RuntimeError) as e:
        told = str(e).splitlines()[0] if str(e) else f"sizes that make no network ({type(e).__name__})"
        m, lines = closest(found, family, family.published)
        return (m, lines) if m and len(lines) < len(m.wanted) // 2 else (None, [told])
    lines = faults(found, m)
    if near.get(member) == 0 and len(lines) < 2:
        return m, lines
    known, others = closest(found, family, sorted((n for n in near if lines or near[n] < 4), key=lambda n: near[n]))
    damaged = len(others) <= len(lines) if lines else len(others) == 1
    return (known, others) if known and damaged else (m, lines)


def closest(found: Schema, family: Family, members: Iterable[str]) -> tuple[Match | None, list[str]]:
    """Of these published models the one that a file differs from in the fewest keys, the first that does in one."""
    best: tuple[Match | None, list[str]] = None, []
    for member in members:
        lines = faults(found, m := prepare(family, family.published[member], member))
        if best[0] is None or len(lines) < len(best[1]):
            best = m, lines
        if len(lines) == 1:
            break
    return best


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
    fit: Match | None = None
    for family in likely:
        if fit and family.signs != fit.family.signs:
            continue
        m, lines = examine(found, family)
        if m is not None and not lines:
            if m.member:
                return m
            fit = fit or m  # unless it is a published one of a family that looks alike
        if fit:
            continue
        title = m.title if m else family.name
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        rank = (m is None, len(lines))
        if best is None or rank < best[0]:
            best = rank, f"{name!r} looks like {title}, but {lines[0]}{more}; fetch it again"
        if m is not None and m.member and len(lines) == 1:
            break  # a published model but for one key is no unpublished one of another family
    if fit:
        return fit
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
