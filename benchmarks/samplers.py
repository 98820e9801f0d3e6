"""Quality against network calls: each sampler of the decoder on the same captions, noise and z_i, judged.

    python benchmarks/samplers.py --weights mini --data corpus
    python benchmarks/samplers.py --weights mini --data corpus --samplers unipc,unipc/karras --steps 6,12

A sampler may name its spacing after a slash. Judged as `unclip evaluate alignment` does: recall@1 of the caption among
32 and the kernel distance to the real pictures; and, for the samplers that draw no noise on the way, how far per pixel
a picture is from the one that DDIM makes of the same noise in the most steps asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from measure import arguments, report, table

from unclip.diffusion.draw import Draw
from unclip.evaluate.alignment import Split, measure
from unclip.evaluate.judge import Judge
from unclip.pictures import to_pil
from unclip.pipeline import UnCLIP
from unclip.settings import Settings
from unclip.weights import hub

BATCH = 16
ALL = "ddim,dpmpp_2m,dpmpp_2m/karras,unipc,ddpm,dpmpp_sde"
QUIET = ("ddim", "dpmpp_2m", "unipc")  # draw no noise on the way, so that one noise means one picture


@torch.inference_mode()
def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", type=Path, required=True, help="the corpus, for captions and real pictures")
    parser.add_argument("--samplers", default=ALL, metavar="A,B")
    parser.add_argument("--steps", default="2,4,8,12,25,50", metavar="N,M")
    parser.add_argument("--limit", type=int, default=96, metavar="N", help="captions of the split compose")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system, split = UnCLIP.from_pretrained(args.weights), Split.load(args.data, 64, "compose", limit=args.limit)
    judge = Judge.load(None, hub.locate(args.weights), system.device)
    z_i = [system.sample_prior(lines, "", Draw(seeds, "prior"), Settings(), quiet) for lines, seeds in batches(split)]
    steps = [int(n) for n in args.steps.split(",")]
    best, rows = None, []
    for name, n in [("ddim", max(steps)), *cells(args.samplers.split(","), steps)]:
        sampler, _, spacing = name.partition("/")
        s = replace(Settings(), sampler=sampler, spacing=spacing or "even", steps=n)
        made = draw(system, split, z_i, s)
        best = made if best is None else best
        numbers = measure(split, to_pil(made), judge)
        recall, kernel = numbers["recall"]["caption"], numbers["distance"]["kernel"]["generated"]
        far = f"{(made - best).square().mean().sqrt().item():.3f}" if sampler in QUIET else ""
        rows.append([name, n, "{value:.3f} ± {error:.3f}".format(**recall["generated"]), f"{kernel:.4f}", far])
    head = ["sampler", "calls", "recall@1 of 32", "kernel distance", f"from {max(steps)} steps of DDIM"]
    real = "Of the real pictures: {value:.3f} ± {error:.3f}.".format(**recall["real"])
    about = f"{system.name} {system.digest}, {len(split.captions)} captions of compose, guidance {Settings.guidance:g}."
    report(args.results, "samplers", f"{about} {real}", table(head, rows))


def cells(samplers: Sequence[str], steps: Sequence[int]) -> list[tuple[str, int]]:
    """What is drawn beside the reference. In the most steps, samplers without noise all draw the same."""
    return [(name, n) for name in samplers for n in steps
            if n < max(steps) or name.partition("/")[0] not in QUIET]  # fmt: skip


def batches(split: Split) -> list[tuple[list[str], list[int]]]:
    seeds = split.seeds(0)
    return [(split.captions[i : i + BATCH], seeds[i : i + BATCH]) for i in range(0, len(seeds), BATCH)]


def draw(system: UnCLIP, split: Split, z_i: Sequence[torch.Tensor], s: Settings) -> torch.Tensor:
    """Pictures [N, 3, 64, 64] of the split's captions, always from the same noise."""
    drawn = [system.decode(z, lines, "", Draw(seeds, "decoder"), s, quiet)
             for z, (lines, seeds) in zip(z_i, batches(split), strict=True)]  # fmt: skip
    return torch.cat(drawn)


def quiet(*step: object) -> None:
    pass


if __name__ == "__main__":
    main()
