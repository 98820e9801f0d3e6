"""What the sampler gains by computing constant things once, and by batching.

    python benchmarks/sampling.py --weights mini
"""

from statistics import median

import torch
from measure import arguments, in_turn, ratio, report, table

from unclip.pipeline import UnCLIP


def main() -> None:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--many", type=int, default=8, metavar="N", help="pictures in the larger batch (default 8)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system = UnCLIP.from_pretrained(args.weights)
    rows = []
    with torch.inference_mode():
        for what, slow, fast, variants in comparisons(system, args.many):
            times = in_turn(variants, args.rounds)
            shown = [f"{name} {1e3 * median(times[name]):.1f} ms" for name in (slow, fast)]
            rows.append([what, *shown, ratio(times[slow], times[fast])])
    report(args.results, "sampling", table(["one step of", "slow", "fast", "times faster"], rows))


def comparisons(system: UnCLIP, many: int):
    """(what, name of the slow way, name of the fast way, both as calls): the same numbers come out of either."""
    size, embed, device = system.decoder.config.size, system.clip.config.embed, system.device
    captions = ["", "a red fox, flat vector emoji"]
    seen, text, z_t = system.read(captions)
    tokens = system.tokenizer.encode(captions, system.decoder.config.context)[0].to(device)
    drop = torch.tensor([True, False], device=device)
    time = torch.full((2 * many,), 500.0, device=device)

    def prior_given():
        return system.prior.condition(text, z_t, seen, drop)

    def decoder_given(n: int):
        return system.decoder.condition(torch.cat([z_t] * n), torch.cat([tokens] * n), drop.repeat(n), drop.repeat(n))

    z, prefix = torch.randn(2, embed, device=device), prior_given()
    yield "the prior", "whole sequence", "prefix kept", {
        "whole sequence": lambda: system.prior(z, time[:2], prior_given()),
        "prefix kept": lambda: system.prior(z, time[:2], prefix),
    }

    x = torch.randn(2 * many, 3, size, size, device=device).to(memory_format=torch.channels_last)
    pair, batch = decoder_given(1), decoder_given(many)
    yield "the decoder", "condition anew", "condition kept", {
        "condition anew": lambda: system.decoder(x[:2], time[:2], decoder_given(1)),
        "condition kept": lambda: system.decoder(x[:2], time[:2], pair),
    }

    parts = zip(*(v.split(1) for v in (z_t, tokens, drop, drop)), strict=True)
    halves = [system.decoder.condition(*part) for part in parts]
    yield "the guided decoder", "two calls", "one batch", {
        "two calls": lambda: [system.decoder(x[i : i + 1], time[:1], half) for i, half in enumerate(halves)],
        "one batch": lambda: system.decoder(x[:2], time[:2], pair),
    }
    yield f"the guided decoder, {many} pictures", "one by one", "one batch", {
        "one by one": lambda: [system.decoder(x[2 * i : 2 * i + 2], time[:2], pair) for i in range(many)],
        "one batch": lambda: system.decoder(x, time, batch),
    }


if __name__ == "__main__":
    main()
