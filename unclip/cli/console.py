"""What is shown on a terminal: results on stdout, everything else on stderr."""

import sys


def clean(text: object, limit: int = 600) -> str:
    """One line of text whose control characters, which could steer a terminal, are written as escapes."""
    line = " ".join(str(text).split())
    line = line if len(line) <= limit else f"{line[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def note(text: object) -> None:
    print(f"unclip: {clean(text)}", file=sys.stderr)


def warn(text: object) -> None:
    note(f"warning: {text}")
