"""`python -m unclip.cli` is `unclip`."""

import sys

from unclip.cli.main import main

sys.exit(main())
