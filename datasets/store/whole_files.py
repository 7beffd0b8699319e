"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to; the file is then synced and takes ``target``'s place, or vanishes on an
    error."""
    # a name of its own: a worker that was given up for lost may still be writing the same shard
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        sync(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
