"""Public systems, put together from what they were published as: a file each.

A file says by `found_in(folder)` whether a folder, or for some one file, holds its system, by content, and reads it by
`from_folder(folder)`; one whose prior was published apart says `PRIOR_APART = True`, and is read by
`from_folder(folder, prior)`. By `native(names)` it says which files of a repository are its system as it was first
published, if they have names of their own. Its class, `SYSTEM`, reads what we saved of it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from unclip.weights import hub
from unclip.weights.config import unknown


class Reader(NamedTuple):
    """What reads a folder's system, and its name; `apart`: it can be told of a prior elsewhere, too."""

    read: Callable[..., Any]
    apart: bool = False
    title: str = ""


def systems() -> tuple[Any, ...]:
    from unclip.published import adm, glide, kandinsky, karlo, stable_unclip

    return karlo, kandinsky, stable_unclip, glide, adm


def reader(folder: Path) -> Reader | None:
    """What reads the system in `folder`; None where no public system is found."""
    ours = hub.system(folder)
    if ours:
        known = {system.SYSTEM.system: system for system in systems()}
        if ours not in known:
            raise unknown(ours, list(known), f"system of {str(folder)!r},")
        found = known[ours]
    else:
        found = None if ours == "" else next((s for s in systems() if s.found_in(folder)), None)
    if found is None:
        return None
    read = found.SYSTEM.from_saved if ours else found.from_folder
    return Reader(read, getattr(found, "PRIOR_APART", False), found.SYSTEM.__name__)


def native(names: list[str]) -> list[str]:
    """Of a repository's files those that make up a public system as it was first published; none if it holds none."""
    told = (system.native(names) for system in systems() if hasattr(system, "native"))
    return next(filter(None, told), [])


def locate(source: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a system: as `hub.locate`, or a folder that holds a public system in whatever form."""
    if Path(source).exists() and str(source) not in hub.shipped() and reader(Path(source)):
        return Path(source)
    return hub.locate(source, revision, local_files_only, native)
