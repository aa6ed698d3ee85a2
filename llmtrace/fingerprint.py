"""Which model this is. **Fingerprint**: a digest of what its files hold, whatever they are called and wherever they lie, so that every
backend gives the same file the same one, and a file that was renamed is still itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

MIB = 1 << 20


def fingerprint(paths: Iterable[str | Path]) -> str:
    """Hex SHA-256 over the size and the first and last MiB of each file, in an order that does not depend on their names.

    Two files of one model may be swapped, moved or renamed. A change in the middle of a file of over two MiB goes unseen where the
    size stays: reading all of a model would take minutes. Raises `OSError` for a file that cannot be read.
    """
    return hashlib.sha256(b"".join(sorted(map(_digest, paths)))).hexdigest()


def _digest(path: str | Path) -> bytes:
    """SHA-256 of one file's size and ends."""
    size = Path(path).stat().st_size
    digest = hashlib.sha256(f"{size}\0".encode())
    with Path(path).open("rb") as file:
        digest.update(file.read(MIB))
        if size > MIB:
            file.seek(max(MIB, size - MIB))
            digest.update(file.read(MIB))
    return digest.digest()
