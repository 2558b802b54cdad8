"""`python -m launcher` is the command `launcher`."""

import sys

from launcher.cli.main import main

sys.exit(main())
