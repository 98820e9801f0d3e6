"""Configuration dataclasses to and from JSON, strictly: an unknown name or a wrong type is an error with its path."""

import difflib
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from unclip.errors import UnclipError

T = TypeVar("T")


def read_json(path: Path) -> dict:
    """A JSON object of a weights folder."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror}; is it a folder of unclip weights?") from e
    except (ValueError, RecursionError) as e:
        raise UnclipError(f"{str(path)!r} is damaged: {e}; fetch or train it again") from e
    if not isinstance(data, dict):
        raise UnclipError(f"{str(path)!r} is damaged: it holds no JSON object; fetch or train it again")
    return data


def to_dict(config: Any) -> Any:
    """Nested dataclasses and tuples → what JSON holds."""
    if is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config)}
    return [to_dict(v) for v in config] if isinstance(config, tuple) else config


def unknown(name: str, known: list[str], where: str = "") -> UnclipError:
    """An error for a name that is none of `known`, with the nearest of them."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return UnclipError(f"unknown {where or 'name'} {name!r}; {hint}")


def from_dict(kind: type[T], data: Any, path: str = "") -> T:
    """Build dataclass `kind` from JSON data; every value is checked against its field's type."""
    if not isinstance(data, Mapping):
        raise UnclipError(f"{path or 'the configuration'} must be an object, not {data!r}")
    hints = get_type_hints(kind)
    for name in data:
        if name not in hints:
            raise unknown(str(name), list(hints), f"setting of {path}" if path else "setting")
    return kind(**{k: convert(hints[k], v, f"{path}.{k}" if path else k) for k, v in data.items()})


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as `hint` wants it: lists become tuples, objects dataclasses, whole numbers floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return from_dict(cast(type, hint), value, path)
    if origin is Literal and value in inner:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (hint,) = (h for h in inner if h is not type(None))
        return convert(hint, value, path)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(convert(inner[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    wanted = f"one of {', '.join(map(repr, inner))}" if origin is Literal else getattr(hint, "__name__", str(hint))
    raise UnclipError(f"{path} is {value!r}; it must be {wanted}")


def override(config: T, name: str, text: str, path: str = "") -> T:
    """`config` with the field at dotted `name` set to `text` read as its type, as in --set train.batch=64."""
    head, _, rest = name.partition(".")
    path, hints = f"{path}.{head}".lstrip("."), get_type_hints(type(config))
    if head not in hints:
        raise unknown(head, list(hints), "setting")
    if not rest:
        return replace(config, **{head: convert(hints[head], parse(hints[head], text), path)})  # type: ignore[type-var]
    inner = getattr(config, head)
    if not is_dataclass(inner):
        raise UnclipError(f"{path} has no setting {rest!r}: it is {inner!r}")
    return replace(config, **{head: override(inner, rest, text, path)})  # type: ignore[type-var]


def parse(hint: Any, text: str) -> Any:
    """Text → a value of JSON's kinds; words that are not JSON stay text."""
    if hint is str or get_origin(hint) is Literal:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
