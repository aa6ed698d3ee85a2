"""The tests. `python -m tests` runs every check, `python -m tests.benchmarks` the measurements."""
