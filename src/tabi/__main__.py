"""``python -m tabi``."""

import sys

from tabi.cli.main import main

sys.exit(main())
