"""``python -m inhouse_server.cli``: the same as the console script ``inhouse``."""

from __future__ import annotations

import sys

from inhouse_server.cli import main

sys.exit(main())
