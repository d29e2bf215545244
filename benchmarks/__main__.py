"""`make bench`: see `benchmarks.pipeline`. The join without a broker: `python -m benchmarks.join`."""

from __future__ import annotations

from benchmarks.pipeline import main

main()
