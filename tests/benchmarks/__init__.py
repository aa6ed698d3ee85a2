"""Measurements, never run by pytest but for a sample of `coverage`. `python -m tests.benchmarks` prints a table and writes JSON."""
