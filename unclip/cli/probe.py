"""`unclip probe`: what each principal component of z_i adds to a picture."""

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from unclip.cli.edits import add_options, run_edit, whole

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

MOST = 4000  # pictures that the components are found from


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "probe",
        description="Draw a picture from fewer components of its z_i than there are, more and more of them: the first "
        "hold what matters most to CLIP.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="what to look into")
    parser.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    parser.add_argument("--dims", type=whole, default=[5, 10, 20, 40, 80, 160], metavar="N,N",
                        help="how many components (default: 5,10,20,40,80,160)")  # fmt: skip
    add_options(parser, film=True)


def run(args: argparse.Namespace) -> int:
    return run_edit(args, "probe", [args.picture], film=True, more=partial(embed, folder=args.data), dims=args.dims)


def embed(system: "UnCLIP", folder: str) -> dict[str, Any]:
    """z_i of the corpus's training pictures, or of `MOST` of them."""
    import torch

    from unclip.data.images import Corpus, compose

    corpus = Corpus.load(folder, system.decoder.config.size, "train", core=True, limit=MOST)
    with torch.inference_mode():
        parts = [system.embed(compose(images).to(system.device)) for images in corpus.images.split(64)]
    return {"embeddings": torch.cat(parts)}
