"""Public systems, put together from what they were published as: a file each.

A file says by `found_in(folder)` whether a folder holds its system, by content, and reads it by `from_folder(folder)`;
one whose prior was published apart, by `from_folder(folder, prior)`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP


def reader(folder: Path) -> "Callable[..., UnCLIP] | None":
    """What reads the system in `folder`; None where no public system is found."""
    from unclip.published import kandinsky, karlo

    return next((system.from_folder for system in (karlo, kandinsky) if system.found_in(folder)), None)
