"""The long proof: real workers on real brokers, with every fault there is, for as long as one likes. See `prove.run`.

Workers and their judgement are those of the integration tests, whose harness is borrowed here.
"""

from __future__ import annotations

import sys
from pathlib import Path

HARNESS = Path(__file__).parents[1] / "tests" / "integration"
if str(HARNESS) not in sys.path:
    sys.path.insert(0, str(HARNESS))
