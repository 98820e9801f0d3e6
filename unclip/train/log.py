"""What a run says: a JSONL log, a progress line, pictures."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from unclip.files import write_bytes


class Log:
    """OUT/log.jsonl, a record a line; a resumed run first drops what was logged after its checkpoint.

    Only the process that `leads` writes.
    """

    def __init__(self, path: Path, step: int, leads: bool = True):
        self.path, self.leads = path, leads
        if not leads:
            return
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            write_bytes(path, "".join(kept).encode())

    def __call__(self, step: int, **values: float) -> None:
        if not self.leads:
            return
        with open(self.path, "a") as f:
            f.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")


def progress(name: str, step: int, steps: int, shown: bool = True) -> tqdm:
    """The progress line, on stderr: loss, pictures a second, time left."""
    return tqdm(total=steps, initial=step, desc=name, file=sys.stderr, unit="step", dynamic_ncols=True, mininterval=1,
                disable=not shown)  # fmt: skip


def say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
