"""Few calls of the network: the teacher, and its few-step student if the weights hold one, judged on held-out captions.

    python benchmarks/fewsteps.py --weights run/model --data corpus
    python benchmarks/fewsteps.py --weights run/model --data corpus --limit 256 --split compose

Recall@1 among 32 captions by the judge, its ratio to that of the teacher in 25 steps, and seconds of the decoder.
"""

import time
from dataclasses import replace

import torch
from measure import arguments, report, table

from unclip.diffusion.draw import Draw
from unclip.evaluate.judge import Judge
from unclip.evaluate.run import alignment
from unclip.pipeline import UnCLIP
from unclip.settings import Settings
from unclip.weights import hub

FULL = 25


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--split", default="compose")
    parser.add_argument("--limit", type=int, default=128, metavar="N", help="pictures a row (default 128)")
    parser.add_argument("--calls", default="1,2,4,8", metavar="A,B")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system = UnCLIP.from_pretrained(args.weights)
    judge = Judge.load(None, hub.locate(args.weights), system.device)
    calls = [int(n) for n in args.calls.split(",")]
    rows = judged(system, judge, args.data, args.split, args.limit, calls)
    head = ["drawn by", "calls", "recall@1", "ratio to teacher's 25", "kernel distance", "seconds a picture, decoder"]
    report(args.results, "few steps", table(head, rows))


def judged(system: UnCLIP, judge: Judge, data: str, split: str, limit: int, calls: list[int]) -> list[list[object]]:
    """Rows of the table: the teacher in 25 steps and in few, then the student in few."""
    variants = {("teacher", n): Settings(steps=n) for n in [FULL, *calls]}
    if "decoder_fast" in system.students:
        variants |= {("student", n): Settings(fast=n) for n in calls}
    rows, full = [], 0.0
    for (who, n), settings in variants.items():
        results = alignment(system, judge, data, settings, splits=[split], limit=limit)["splits"][split]
        recall = results["recall"]["caption"]["generated"]["value"]
        full = full or recall
        distance = results["distance"]["kernel"]["halves"]
        rows.append([who, n, recall, recall / full if full else "–", distance, decoding(system, settings)])
    return rows


@torch.inference_mode()
def decoding(system: UnCLIP, settings: Settings) -> float:
    """Seconds of the decoder for one picture, the second of two."""
    settings = system.hurried(replace(settings, size=system.decoder.config.size))
    z_i = torch.nn.functional.normalize(torch.ones(1, system.decoder.config.embed, device=system.device), dim=1)
    for _ in range(2):
        began = time.perf_counter()
        system.decode(z_i, "a red fox", "", Draw([0], "decoder"), settings, lambda *step: None)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
