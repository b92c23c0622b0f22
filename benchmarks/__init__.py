"""Measurements; run each from the root of the project as ``python -m benchmarks.X``."""
