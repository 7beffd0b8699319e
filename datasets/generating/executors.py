"""Executors that draw shards: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

ATTEMPTS = 3
"""The number of times that work is started again after its process was lost."""
PATIENCE = 10
"""The seconds to wait for a scheduler's answer."""
DESERTED = 60
"""The seconds without a result after which a cluster must show that it has workers."""

Results = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""A map of a function over tasks; results come as they are finished, in any order."""


@contextlib.contextmanager
def executor(workers: int, dask: str | None) -> Iterator[Results]:
    """Give the way to run tasks that ``workers`` and ``dask`` ask for.

    Raises:
        ImportError: if Dask is asked for and not installed.
        OSError: if the scheduler cannot be reached.
    """
    if dask is not None:
        with _dask_client(dask) as client:
            yield lambda function, tasks: _on_cluster(client, function, tasks)
    elif workers > 1:
        yield lambda function, tasks: _in_processes(workers, function, tasks)
    else:
        yield map


def _in_processes(
    workers: int, function: Callable[[Any], Any], tasks: Sequence[Any]
) -> Iterator[Any]:
    """Run tasks in processes.

    Processes that die (killed, out of memory) are replaced, and their tasks started again. After a task
    has failed no other is begun, but those at work are finished and their results kept.
    """
    if len(tasks) <= 1:
        yield from map(function, tasks)
        return
    left = dict(enumerate(tasks))
    losses = 0
    failure = None
    while left and failure is None:
        before = len(left)
        with concurrent.futures.ProcessPoolExecutor(
            min(workers, len(left)), _context(), _die_with_parent
        ) as pool:
            futures = {pool.submit(function, task): key for key, task in left.items()}
            try:
                for future in concurrent.futures.as_completed(futures):
                    if future.cancelled():
                        continue
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    if error is None:
                        del left[futures[future]]
                        yield future.result()
                    elif failure is None:
                        failure = error
                        # shutdown(cancel_futures=True) would not tell as_completed
                        for other in futures:
                            other.cancel()
            except BrokenProcessPool as error:
                losses = 1 if len(left) < before else losses + 1
                if losses >= ATTEMPTS:
                    raise OSError(
                        f"worker processes died {losses} times in a row (killed, out of memory, or a script without "
                        "`if __name__ == '__main__':`); what was finished is safe. Try fewer workers"
                    ) from error
            except BaseException:  # Ctrl-C: a shard is whole or absent, so that nobody need wait
                for process in list(pool._processes.values()):
                    process.terminate()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    if failure is not None:
        raise failure


def _context() -> multiprocessing.context.BaseContext:
    """Return the way to start fresh processes: a fork of this one would inherit its threads' locks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sobolev.datasets.generating.generation"])
    return context


def _die_with_parent() -> None:
    """Make a pool's process leave with its parent; it would outlive a killed one, waiting for work."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    try:
        from dask.distributed import Client
    except ImportError:
        raise ImportError(
            "drawing on a Dask cluster needs Dask: pip install 'sobolev[distributed]'"
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler` and give its address, "
            "such as tcp://localhost:8786"
        ) from error
    try:
        yield client
    finally:
        client.close()


def _on_cluster(client: Any, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """Run tasks on a Dask cluster, which starts those of lost workers again as long as there are others."""
    from distributed.scheduler import KilledWorker

    cluster = client.get_executor(pure=False)
    pending = {cluster.submit(function, task) for task in tasks}
    try:
        while pending:
            done, pending = concurrent.futures.wait(pending, DESERTED, "FIRST_COMPLETED")
            if not done:
                _check_workers(client)
            for future in done:
                yield future.result()
    except (KilledWorker, concurrent.futures.CancelledError) as error:
        raise OSError(
            f"the Dask cluster lost its scheduler, or every worker that tried a shard ({error}); what was finished is "
            "safe"
        ) from error
    finally:
        for future in pending:
            future.cancel()


def _check_workers(client: Any) -> None:
    if not client.scheduler_info()["workers"]:
        raise OSError(
            f"the Dask cluster at {client.scheduler.address} has no workers (waited {DESERTED} s); start some with "
            "`dask worker ADDRESS` and run the same command again: what was finished is safe"
        )
