"""`unclip grid`: picture files on one sheet."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from unclip.cli.edits import read
from unclip.cli.generate import check_writable, write
from unclip.errors import UnclipError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("grid", description="Put picture files side by side on one sheet.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="row after row")
    parser.add_argument("-o", "--out", default="grid.png", metavar="FILE", help="png, webp or jpg (default: grid.png)")
    parser.add_argument("--columns", type=int, metavar="N", help="pictures a row (default: as square as can be)")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="of each picture (default: the largest one's)")
    parser.add_argument("--no-metadata", action="store_true", help="leave out how the first picture was made")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the path")


def run(args: argparse.Namespace) -> int:
    from unclip import metadata
    from unclip.files import write_bytes
    from unclip.pictures import flat, sheet, square
    from unclip.settings import check_whole

    began, path = time.monotonic(), Path(args.out)
    check_writable([path])
    images, digests = zip(*map(read, args.pictures), strict=True)
    square_enough = -(-len(images) // max(1, round(len(images) ** 0.5)))
    columns = square_enough if args.columns is None else args.columns
    side = max(max(image.size) for image in images) if args.side is None else args.side
    check_whole("--columns", columns, 1, 1000)
    check_whole("--side", side, 1, 4096)
    paper = sheet([square(flat(image), side) for image in images], columns)
    record = first_record(args.pictures)
    if record is None or args.no_metadata:
        write_bytes(path, metadata.encode(paper, metadata.picture_format(path), None))
        print(json.dumps({"path": str(path)}) if args.json else path)
    else:
        write(path, paper, record | {"edit": {"verb": "grid", "sources": digests, "columns": columns}}, began, args)
    return 0


def first_record(paths: list[str]) -> dict[str, Any] | None:
    """How the first of the pictures that says so was made."""
    from unclip import metadata

    for path in paths:
        try:
            if record := metadata.read(path).record:
                return record
        except UnclipError:  # a format that holds no record
            continue
    return None
