"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to; the file is then synced and takes ``target``'s place, or vanishes on an
    error.

    Raises:
        OSError: for a ``target`` that ``place_of`` refuses, or a disk that is full.
    """
    target = place_of(target)
    # a name of its own: a worker that was given up for lost may still be writing the same shard
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        sync(part)
        part.replace(target)
    except OSError as error:
        if error.errno in _FULL and error.filename is None:  # a failed write does not say where
            error.filename = str(target)
        raise
    finally:
        part.unlink(missing_ok=True)


def save_tensors(content: Any, file: Path) -> None:
    """Write a file of ``torch.save``, without its name inside.

    Raises:
        OSError: if the disk does not take it; torch itself would raise a RuntimeError.
    """
    with file.open("wb") as handle:
        try:
            torch.save(content, handle)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def place_of(target: Path) -> Path:
    """Return the file that is written where ``target`` is asked for: that behind a link, which stays a link.

    Raises:
        OSError: for a device or a pipe, which a renamed file would remove for everyone.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:  # a link may be there, but not yet what it names
        return Path(os.path.realpath(target))
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(
            f"{target} is a device or a pipe, and what is written is a file that is whole or absent; name a file"
        )
    return Path(os.path.realpath(target))


def sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
