"""`unclip synthesize`: a corpus drawn by the model itself, from captions of one's own, invented, or asked for."""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

from unclip.cli.generate import add_machine_options, load
from unclip.errors import UnclipError

ASK = "Write {n} short captions of simple illustrations, one a line, no numbers, no quotes. For example: {example}"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "synthesize",
        description="Draw pictures of captions, drop those that do not fit, and write the rest as a corpus that unclip "
        "train reads. Each sample says how it was made.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--captions", metavar="FILE", help="captions, one a line")
    source.add_argument("--data", metavar="DIR", help="corpus: a small language model of its captions says new ones")
    source.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible server, as http://localhost:8000/v1")
    parser.add_argument("--model", default="default", metavar="NAME", help="the model to ask for at --endpoint")
    parser.add_argument("-n", type=int, default=64, metavar="N", help="captions (default: 64)")
    parser.add_argument("--least", type=float, default=0.7, metavar="X", help="CLIP score to be kept (default: 0.7)")
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="steps of the decoder (default: 25)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first picture (default: 0)")
    parser.add_argument("--out", default="synthetic", metavar="DIR", help="where the corpus goes (default: synthetic)")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.n < 1:
        raise UnclipError(f"-n is {args.n}; it must be at least 1")
    if args.captions:
        lines, source = from_file(Path(args.captions))[: args.n], f"file {Path(args.captions).name}"
    elif args.data:
        lines, source = invented(Path(args.data), args.n, args.seed), "n-gram model of a corpus"
    else:
        lines, source = asked(args.endpoint, args.model, args.n), f"model {args.model}"
    if not lines:
        raise UnclipError(f"no caption came from the {source}; give it some text")
    system = load(args, args.weights)

    from unclip.evaluate.synthesis import synthesise
    from unclip.settings import Settings

    settings = Settings(size=system.decoder.config.size, steps=args.steps)
    counted = synthesise(system, lines, Path(args.out), settings, least=args.least, source=source, seed=args.seed)
    print(json.dumps(counted))
    return 0


def from_file(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UnclipError(f"{str(path)!r} is not UTF-8 at byte {e.start}; convert it first") from e


def invented(data: Path, n: int, seed: int) -> list[str]:
    from unclip.data import shards
    from unclip.data.writer import Captions

    size = next((p for p in sorted(data.glob("*")) if p.name.isdigit() and (p / "train").is_dir()), None)
    if size is None:
        raise UnclipError(f"no corpus in {str(data)!r}; make one with: unclip data illustrations {data}")
    return Captions(row["caption"] for path in sorted((size / "train").glob("*.parquet"))
                    for row in shards.table(path) if row.get("caption")).new(n, seed)  # fmt: skip


def asked(endpoint: str, model: str, n: int, timeout: float = 120.0) -> list[str]:
    """Captions from the chat endpoint of an OpenAI-compatible server. Its reply is text, and only read as that."""
    if not endpoint.startswith(("http://", "https://")):
        raise UnclipError(f"--endpoint is {endpoint!r}; it must begin with http:// or https://")
    example = "a red fox, flat vector emoji"
    body = {"model": model, "messages": [{"role": "user", "content": ASK.format(n=n, example=example)}]}
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            text = json.loads(reply.read(1 << 20))["choices"][0]["message"]["content"]
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise UnclipError(f"{endpoint!r} gave no captions: {e}; is it an OpenAI-compatible server?", code=1) from e
    return [line.strip(" -*\t")[:200] for line in str(text).splitlines() if line.strip(" -*\t")][:n]
