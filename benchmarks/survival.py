"""Kill a generation at random moments, flip random bits: what was finished must read, what is
resumed must equal an undisturbed run's files byte for byte, and every flip must be found.

.venv/bin/python benchmarks/survival.py [--kills 50] [--flips 200]

Three ways of drawing are killed: one process, two workers, and a Dask cluster of two worker
processes, of which the client and the workers are killed in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sobolev.datasets import verify

_WRITER = """
import os, sys
import sobolev.datasets.generating.generation as generation
from sobolev.datasets import NavierStokesRecipe
generation.SHARD_SIZE = 4
if __name__ == "__main__":
    print("ready", flush=True)
    recipe = NavierStokesRecipe(viscosity=0.01, time=2.0, interval=0.5, solver_resolution=32)
    options = {"workers": int(sys.argv[2])} if sys.argv[2].isdigit() else {"dask": sys.argv[2]}
    generation.generate(recipe, sys.argv[1], {"train": 48, "test": 12}, progress=False, **options)
"""

_CLUSTER = """
import sys
import sobolev.datasets.generating.generation as generation
from distributed import LocalCluster
generation.SHARD_SIZE = 4
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        for _ in sys.stdin:
            running = (w for w in cluster.workers.values() if w.status.name == "running")
            print(*(worker.pid for worker in running), flush=True)
"""


def content(path: Path) -> dict[str, bytes]:
    files = (f for f in path.rglob("*") if f.suffix in (".nc", ".json", ".md"))
    return {str(f.relative_to(path)): f.read_bytes() for f in files}


class Writer:
    """The generation as a process of its own."""

    def __init__(self, script: Path, path: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(path), how], stdout=subprocess.PIPE
        )
        self.process.stdout.readline()

    def kill_after(self, seconds: float) -> bool:
        """Whether it was still at work."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return True
        return False

    def finish(self) -> None:
        if self.process.wait():
            raise SystemExit("a generation failed")


def kill_often(
    folder: Path, script: Path, how: str, kills: int, undisturbed: dict[str, bytes]
) -> None:
    """Kill, check what is there, go on; compare whenever a run gets to its end."""
    dice, done, runs, finished = random.Random(0), 0, 0, 0
    cluster = None
    if how == "dask":
        text = script.with_name("cluster.py")
        text.write_text(_CLUSTER)
        cluster = subprocess.Popen(
            [sys.executable, str(text)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        how = cluster.stdout.readline().strip()
    start = time.perf_counter()
    Writer(script, folder / "timed", how).finish()
    length = time.perf_counter() - start
    while done < kills:
        path = folder / f"run-{runs}"
        writer = Writer(script, path, how)
        moment = dice.uniform(0, 0.7 * length)  # later ones mostly find the work done
        if cluster is not None and done % 2:
            time.sleep(moment)
            cluster.stdin.write("pids\n")
            cluster.stdin.flush()
            pids = [word for word in cluster.stdout.readline().split() if word.isdigit()]
            killed, ended = bool(pids), True  # none while a lost worker is being replaced
            if killed:
                os.kill(int(dice.choice(pids)), signal.SIGKILL)
            writer.finish()
        else:
            killed = writer.kill_after(moment)
            ended = not killed
        done += killed
        problems = verify(path) if (path / "manifest.json").exists() else []
        if wrong := [p for p in problems if "unfinished" not in p]:
            raise SystemExit(f"after a kill: {wrong}")
        if done == kills and not ended:
            Writer(script, path, how).finish()
            ended = True
        if ended:
            if content(path) != undisturbed:
                raise SystemExit(f"{path} differs from the undisturbed run")
            runs, finished = runs + 1, finished + 1
    if cluster is not None:
        cluster.kill()
    print(f"{done} kills, {finished} resumed runs, all equal to the undisturbed one byte for byte")


def flip_often(path: Path, flips: int) -> None:
    dice, found = random.Random(0), 0
    files = sorted(f for f in path.rglob("*") if f.suffix in (".nc", ".json"))
    sizes = [f.stat().st_size for f in files]
    for _ in range(flips):
        (file,) = dice.choices(files, sizes)
        good = file.read_bytes()
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        file.write_bytes(bad)
        try:
            found += any(str(file) in problem for problem in verify(path))
        except (OSError, ValueError):
            found += 1
        file.write_bytes(good)
    print(f"{found} of {flips} flipped bits found")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "writer.py"
        script.write_text(_WRITER)
        Writer(script, folder / "undisturbed", "1").finish()
        undisturbed = content(folder / "undisturbed")
        for how in ("1", "2", "dask"):
            sub = folder / f"by-{how}"
            sub.mkdir()
            print(
                {"1": "one process", "2": "two workers", "dask": "Dask"}[how], end=": ", flush=True
            )
            kill_often(sub, script, how, options.kills, undisturbed)
        flip_often(folder / "undisturbed", options.flips)


if __name__ == "__main__":
    main()
