"""Benchmarks: figures as ratios, medians of interleaved runs.  ``python -m tests.benchmarks --help``."""
