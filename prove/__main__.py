"""`make prove`: see `prove.run`."""

from __future__ import annotations

import sys

from prove.run import main

if __name__ == "__main__":
    sys.exit(main())
