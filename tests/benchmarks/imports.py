"""What importing costs over `import numpy`, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.paired import Ratio, paired

LIMIT = 0.150
"""Seconds that the whole public surface may add to `import numpy`: shell completion has to feel immediate."""
SURFACE = "import llmtrace; [getattr(llmtrace, name) for name in llmtrace.__all__]"
STATEMENTS = {
    "import numpy": "import numpy",
    "import llmtrace": "import numpy, llmtrace",
    "every public name": f"import numpy; {SURFACE}",
    "and the installed plugins": f"import numpy; {SURFACE}; from llmtrace.plugins import plugins; plugins()",
    "and the command line": f"import numpy; {SURFACE}; from llmtrace.cli.app import app",
}


def measure(rounds: int) -> list[Ratio]:
    """Each statement in fresh processes, side by side."""

    def start(statement: str) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    variants = {name: lambda statement=statement: start(statement) for name, statement in STATEMENTS.items()}
    return paired("a fresh process", variants, rounds)
