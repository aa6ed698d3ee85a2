"""Write the files of the cases, to try their commands: `python -m tests.comparison.golden --write DIRECTORY` makes DIRECTORY/1 to DIRECTORY/10.

A case whose runtime is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path


def main(arguments: list[str]) -> int:
    """The exit status: 1 where a case was left out."""
    parser = argparse.ArgumentParser(prog="python -m tests.comparison.golden")
    parser.add_argument(
        "--write", type=Path, metavar="DIRECTORY", required=True, help="where; it must not be there yet"
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="the cases of these numbers")
    asked = parser.parse_args(arguments)
    if asked.write.exists():
        parser.error(f"{asked.write} is there already: name a new directory")
    warnings.simplefilter("ignore")
    from tests.comparison.golden.writing import CASES

    left_out = 0
    for number in asked.only or CASES:
        if number not in CASES:
            parser.error(f"there is no case {number}: they are 1 to {len(CASES)}")
        directory = asked.write / str(number)
        directory.mkdir(parents=True)
        try:
            CASES[number](directory)
        except ImportError as error:
            left_out += 1
            print(f"{number}: left out ({error})")
        else:
            print(f"{number}: {', '.join(sorted(path.name for path in directory.iterdir()))}")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
