"""Benchmarks: measured side by side, quoted as ratios; nothing here asserts a time."""
