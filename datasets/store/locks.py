"""Folders of one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock

_LACKING = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_log = logging.getLogger("sobolev")


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a folder, made if need be, for one writer at a time.

    Where the file system has no locks, as some network and bucket mounts, a warning asks the user to see
    to it.

    Args:
        path: the folder.
        wait: until another process that is writing there has finished.

    Raises:
        FileExistsError: if another process is writing there, unless it is waited for.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / ".lock")
    try:
        _acquire(lock, path, wait)
    except filelock.Timeout:
        raise FileExistsError(
            f"another process is writing to {path}; wait for it or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _LACKING:
            raise
        _log.warning(
            f"the file system of {path} has no locks; make sure that no other process writes there"
        )
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, path: Path, wait: bool) -> None:
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise
        _log.info(f"another process is writing to {path}, which is waited for")
        lock.acquire()
