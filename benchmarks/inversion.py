"""How well a picture comes back from (z_i, x_T): PSNR of held-out pictures after `invert` and `reconstruct`.

    python benchmarks/inversion.py --weights mini --data corpus
"""

import argparse

import torch

from unclip import UnCLIP
from unclip.data.images import Corpus, compose
from unclip.edit.invert import Latents, up
from unclip.edit.session import Session

TRIPS = ((1, 50), (1, 100), (1, 250), (2, 50), (4, 25), (4, 50), (6, 25))  # calls of the network a step, steps


@torch.inference_mode()
def trip(system: UnCLIP, x: torch.Tensor, calls: int, steps: int) -> tuple[torch.Tensor, float]:
    """x [B, 3, S, S] → PSNR [B] in dB, peak to peak 2, and the standard deviation of x_T."""
    session = Session(system, [""], steps=steps)
    z_i = system.embed(x)
    denoise, given = system.guided(z_i, "", "", session.s)
    walking = up(denoise, x * session.levels.alpha[1].to(x), session.levels, calls, given=given)
    x_T = system.follow(walking, steps, quiet)
    back = session.descend(0, Latents(z_i, x_T), quiet).clamp(-1, 1)
    return 10 * (4 / (back - x).square().flatten(1).mean(1)).log10(), x_T.std().item()


def quiet(*told: object) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", required=True, metavar="DIR", help="the corpus")
    parser.add_argument("--pictures", type=int, default=16, metavar="N")
    args = parser.parse_args()
    system = UnCLIP.from_pretrained(args.weights)
    corpus = Corpus.load(args.data, system.decoder.config.size, "val", core=True, limit=400)
    rows = torch.linspace(0, len(corpus) - 1, args.pictures).long()  # of many concepts and styles
    x = compose(corpus.images[rows]).to(system.device)
    print(f"{system.name} {system.digest}, {len(x)} pictures of val\n")
    print("| calls a step | steps | calls | PSNR, mean | least | std of x_T |\n" + "| ---: " * 6 + "|")
    for calls, steps in TRIPS:
        psnr, std = trip(system, x, calls, steps)
        told = f"{psnr.mean():.1f} | {psnr.min():.1f} | {std:.2f}"
        print(f"| {calls} | {steps} | {calls * (steps - 1)} | {told} |", flush=True)


if __name__ == "__main__":
    main()
