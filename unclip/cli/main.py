"""`unclip`: finds the command, runs it, and says every error in one line.

A command's module is imported, and its parser built, only when it is called: `unclip --help` answers at once.
"""

import argparse
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import unclip
from unclip.cli.console import clean, note
from unclip.errors import UnclipError
from unclip.weights.config import unknown

COMMANDS = {
    "generate": "draw pictures of a caption",
    "variations": "draw a picture again, freely or closely",
    "img2img": "draw a caption, beginning from a picture",
    "interpolate": "draw what lies between pictures and texts",
    "diff": "change a picture towards what a text says",
    "inpaint": "draw a part of a picture anew",
    "outpaint": "draw more around a picture",
    "invert": "find what the decoder makes a picture from",
    "probe": "show what each component of z_i holds",
    "grid": "put pictures on one sheet",
    "convert": "read a checkpoint of another project",
    "upscale": "enlarge a picture of your own",
    "inspect": "say how a picture was made, or what weights hold",
    "train": "train a whole system, or one stage of it",
    "lineage": "train, draw with and compare DALL·E 2's ancestors",
    "synthesize": "draw a corpus to train on, keeping what fits its captions",
    "explore": "look for what the encoders learnt unasked",
    "evaluate": "measure how well pictures fit their captions",
    "data": "obtain training data",
    "doctor": "say what this machine offers and what is installed",
}


class Help(argparse.HelpFormatter):
    """Leaves room for the longest command: argparse forgets that it is indented twice."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


class Parser(argparse.ArgumentParser):
    """Mistakes become an UnclipError; options are never guessed from their first letters."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False, formatter_class=Help)

    def error(self, message: str) -> Any:
        raise UnclipError(f"{message}; see: {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stderr).write(message)  # argparse's own hides that it could not be written

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = action.option_strings[-1] if action.option_strings else str(action.metavar).lower()
            raise unknown(str(value), [str(choice) for choice in action.choices], kind)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 failed at work, 2 bad input, 130 interrupted."""
    # Waiting threads sleep instead of spinning: beside another busy process this was up to four times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("UNCLIP_DEBUG", "0") not in ("", "0")
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        stream.reconfigure(encoding="utf-8", errors=errors)  # type: ignore[union-attr]
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if main_thread else None
    try:
        code = dispatch([a for a in arguments if a != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has left
        abandon_stdout()
        return 1
    except Exception as e:
        if debug:
            traceback.print_exc()
        message, code = explain(e)
        note(f"error: {message}")
        abandon_stdout()
        return code
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


def abandon_stdout() -> None:
    """If what is left to print cannot be, let Python not try again, with a complaint, as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def dispatch(arguments: list[str]) -> int:
    name = next((a for a in arguments if not a.startswith("-")), None)
    parser = Parser(prog="unclip", description="DALL·E 2 in the open: pictures of what a caption says.")
    parser.add_argument("--version", action="version", version=f"unclip {unclip.__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from; also UNCLIP_DEBUG=1")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=Parser)
    for command, help_line in COMMANDS.items():
        if command == name:
            import_module(f"unclip.cli.{command}").add_parser(commands)
        else:
            commands.add_parser(command, help=help_line)
    try:
        args, extra = parser.parse_known_args(arguments)
    except SystemExit as e:  # --help and --version
        return int(e.code or 0)
    if extra:
        raise unexpected(extra[0], commands.choices.get(args.command, parser))
    if args.command is None:
        parser.print_help()
        return 0
    return import_module(f"unclip.cli.{args.command}").run(args)


def unexpected(argument: str, parser: argparse.ArgumentParser) -> UnclipError:
    if argument.startswith("-"):
        name, known = argument.partition("=")[0], options(parser)
        return unknown(name, [option for option in known if option.startswith(name)] or known, "option")
    return UnclipError(f"unexpected argument {argument!r}; texts with spaces need quotes; see: {parser.prog} --help")


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Long options of a parser and of the parsers inside it."""
    inner = [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
    own = [o for o in parser._option_string_actions if o.startswith("--")]
    return list(dict.fromkeys(own + [o for p in inner for o in options(p)]))


def explain(e: Exception) -> tuple[str, int]:
    """An error as one line that says what to do, and the exit status."""
    if isinstance(e, UnclipError):
        return str(e), e.code
    if isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(e):
        return "out of memory; close other programs, or ask for a smaller size, batch or --best-of", 1
    if isinstance(e, ModuleNotFoundError):
        from unclip.cli.doctor import extra_of

        extra = extra_of(e.name or "")
        return f"this needs the package {e.name!r}; install it: pip install '{extra or e.name}'", 2
    if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {e.filename or 'while writing'}; free some space or choose another disk", 1
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename or 'input or output'}: {e.strerror}", 2 if e.filename else 1
    return f"{type(e).__name__}: {clean(e) or 'no more is known'}; --debug shows where", 1


if __name__ == "__main__":
    sys.exit(main())
