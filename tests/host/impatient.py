"""`launcher` that is given a second to stop."""

from __future__ import annotations

import sys

from launcher.cli import serve
from launcher.cli.main import main

if __name__ == "__main__":
    serve.STOP_LIMIT = 1
    sys.exit(main())
