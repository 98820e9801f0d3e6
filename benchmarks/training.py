"""Pictures a second of each training stage, in float32 and in bfloat16 where the hardware has it.

    python benchmarks/training.py mini --data DIR

The stages that read a trained CLIP get an untrained one of the same shape: it is as fast.
"""

import tempfile
from importlib import import_module
from pathlib import Path
from statistics import median

import torch
from measure import arguments, in_turn, ratio, report, table

from unclip.data.images import generator
from unclip.machine import best_device, keep_buffers, native_bfloat16
from unclip.train.optim import EMA, optimiser
from unclip.train.recipe import Stage


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("recipe", nargs="?", default="mini")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a corpus; a small one will do")
    parser.add_argument("--stages", default="clip,prior,decoder,upsampler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_buffers()
    device, recipes, rows = best_device(), import_module(f"unclip.recipes.{args.recipe}"), []
    names = ("float32", "bfloat16") if native_bfloat16(device) else ("float32",)
    with tempfile.TemporaryDirectory() as folder:
        clip = recipes.clip().stage(args.data, Path(folder), device)
        clip.export(clip.net, Path(folder), {})
        for name in args.stages.split(","):
            recipe = getattr(recipes, name)()
            stage = clip if name == "clip" else recipe.stage(args.data, Path(folder), device)
            times = in_turn({n: step(stage, n == "bfloat16") for n in names}, args.rounds)
            batch = recipe.train.batch
            gain = ratio(times["float32"], times["bfloat16"]) if len(names) > 1 else "no bfloat16 here"
            rows.append([name, batch, *(batch / median(times[n]) for n in names), gain])
    head = ["stage", "batch", *(f"{n}, images/s" for n in names), "times faster"]
    report(args.results, f"training {args.recipe}", table(head, rows))


def step(stage: Stage, bfloat: bool):
    """One step of training as a call: batch, loss, gradients, optimiser, averaged weights."""
    config, device = stage.recipe.train, stage.device
    stepper = optimiser(stage.net, config.optimiser, config.lr, config.beta2, config.eps, config.weight_decay)
    ema = EMA(stage.net, config.ema)

    def call() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat):
            loss = stage.loss(stage.batch(0), generator(0, "benchmark"))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.net.parameters(), config.clip)
        stepper.step()
        stepper.zero_grad(set_to_none=True)
        ema.update(stage.net, 0)

    return call


if __name__ == "__main__":
    main()
