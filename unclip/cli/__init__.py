"""The command line, one small file a command: `add_parser(subparsers)` and `run(args) -> exit status`."""
