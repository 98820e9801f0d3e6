"""Quality against network calls: each sampler of the decoder on the same captions, noise and z_i, judged.

    python benchmarks/samplers.py --weights mini --data corpus
    python benchmarks/samplers.py --weights mini --data corpus --samplers unipc,unipc/karras --steps 6,12

A sampler may name its spacing after a slash. Judged as `unclip evaluate alignment` does: recall@1 of the caption among
32 and the kernel distance to the real pictures; and how far, per pixel, a picture is from the one that many steps of
DDIM make of the same noise, for the samplers that draw none on the way.
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
ALL = "ddim,ddim/karras,dpmpp_2m,dpmpp_2m/karras,unipc,unipc/karras,ddpm,dpmpp_sde,dpmpp_sde/karras"
QUIET = ("ddim", "dpmpp_2m", "unipc")  # draw no noise on the way, so that one noise means one picture


@torch.inference_mode()
def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", type=Path, required=True, help="the corpus, for captions and real pictures")
    parser.add_argument("--samplers", default=ALL, metavar="A,B")
    parser.add_argument("--steps", default="5,8,12,25,50", metavar="N,M")
    parser.add_argument("--limit", type=int, default=128, metavar="N", help="captions of the split compose")
    parser.add_argument("--reference", type=int, default=250, metavar="N", help="DDIM steps to compare pictures with")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system, split = UnCLIP.from_pretrained(args.weights), Split.load(args.data, 64, "compose", limit=args.limit)
    judge = Judge.load(None, hub.locate(args.weights), system.device)
    z_i = [system.sample_prior(lines, "", Draw(seeds, "prior"), Settings(), quiet) for lines, seeds in batches(split)]
    best = draw(system, split, z_i, Settings(steps=args.reference))
    rows = []
    for name in args.samplers.split(","):
        sampler, _, spacing = name.partition("/")
        for steps in map(int, args.steps.split(",")):
            s = replace(Settings(), sampler=sampler, spacing=spacing or "even", steps=steps)
            made = draw(system, split, z_i, s)
            numbers = measure(split, to_pil(made), judge)
            recall, kernel = numbers["recall"]["caption"]["generated"], numbers["distance"]["kernel"]["generated"]
            far = f"{(made - best).square().mean().sqrt().item():.3f}" if sampler in QUIET else ""
            rows.append([name, steps, f"{recall['value']:.3f} ± {recall['error']:.3f}", f"{kernel:.4f}", far])
    head = ["sampler", "calls", "recall@1 of 32", "kernel distance", f"from {args.reference} steps of DDIM"]
    report(args.results, "samplers", f"{len(split.captions)} captions of compose, guidance 2.", table(head, rows))


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
