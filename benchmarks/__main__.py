"""`make bench`: the pipeline on a real broker. The parts without a broker: `python -m benchmarks.match`, `….join`."""

from __future__ import annotations

from benchmarks.pipeline import main

main()
