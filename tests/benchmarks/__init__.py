"""Measurements, never run by pytest. `python -m tests.benchmarks` prints a table and writes JSON."""
