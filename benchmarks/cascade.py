"""Seconds and peak memory of a large picture, whole and in tiles, and how far these differ from the whole.

    python benchmarks/cascade.py --weights run/model
    python benchmarks/cascade.py --weights run/model --side 2048

The picture is enlarged fourfold to `--side` by the largest upsampler of the weights, each time in a fresh process.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import MEMORY, arguments, report, table
from PIL import Image

RUN = f"{MEMORY}\n" + r"""
import json, sys, time
import numpy as np, torch
from PIL import Image
from unclip import UnCLIP, upscale
weights, side, tile, threads, out = sys.argv[1:]
torch.set_num_threads(int(threads))
system, side = UnCLIP.from_pretrained(weights, device="cpu"), int(side)
seen = np.random.default_rng(0).integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
small = Image.fromarray(seen).resize((side // 4, side // 4), Image.Resampling.BICUBIC)
before, began = mib("VmRSS"), time.perf_counter()
large = upscale(system, small, side, tile=int(tile) or None, progress=False)
seconds = time.perf_counter() - began
large.save(out)
print(json.dumps([seconds, mib("VmHWM"), mib("VmHWM") - before]))
"""


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--side", type=int, default=1024, help="pixels (default 1024)")
    parser.add_argument("--tiles", default="0,512,256", metavar="A,B", help="sides of tiles, 0 is the whole picture")
    args = parser.parse_args()
    rows = measured(args.weights, args.side, [int(tile) for tile in args.tiles.split(",")], args.threads)
    head = ["tile", "seconds", "peak memory, MiB", "of them for the picture", "differs from the first, of 255"]
    report(args.results, f"{args.side} px", table(head, rows))


def measured(weights: str, side: int, tiles: list[int], threads: int) -> list[list[object]]:
    """Rows of the table, of one process each."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "large.png"
        for tile in tiles:
            words = [weights, str(side), str(tile), str(threads), str(out)]
            done = subprocess.run([sys.executable, "-c", RUN, *words], check=True, capture_output=True)
            with Image.open(out) as image:
                pixels = np.asarray(image).astype(int)
            first = pixels if first is None else first
            rows.append([tile or "none", *json.loads(done.stdout), int(np.abs(pixels - first).max())])
    return rows


if __name__ == "__main__":
    main()
