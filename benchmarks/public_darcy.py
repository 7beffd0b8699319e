"""neuralop's published Darcy files: our operators beside neuralop 2.0.0's FNO after equal time of training.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/public_darcy.py FOLDER --seconds 100 --seeds 0 1 2

FOLDER holds darcy_train_16.pt, darcy_test_16.pt and darcy_test_32.pt (neuralop/data/datasets/data in its repository).
1000 fields of 16² train; judged are the 50 test fields at 16² and, zero-shot, the same 50 at 32², on the files' nodes.

The files do not say where their nodes lie. The mean pressure does: it is zero at node 0 and, to 3 % of a cell,
symmetric about node n/2. So the nodes are i/n, both walls are zero, and the wall at 1 is left out. With it added
(``with_walls``) the unit square has its eight symmetries, from which training draws and over which predictions are
averaged. As they are stored, the fields have only the transposition, and look periodic.

Networks have 8 modes per sign and width 24, but for MgNO (4 levels, 4 layers, width 16), which is tied to the grid it
was trained on: its finer pressures are those of 16 cells, resampled by sines. Time counts as in training.py, which
trains; install neuralop as it says.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sobolev.datasets import OperatorDataModule, store_fields
from sobolev.operators import FNO, MgNO, Operator
from sobolev.training import SOAP
from training import ADAM_RATE, Clock, Foreign, Problem, Timed, adam_for, count, neuralop_fno

RESOLUTIONS = (16, 32)
SIZE = Problem("", (), modes=(8, 8), width=24)
SOAP_RATE = 4e-3


def fields(file: Path) -> xr.Dataset:
    """Permeabilities (of two) and pressures as stored, at the nodes i/n."""
    values = torch.load(file, weights_only=True)
    nodes = np.arange(values["x"].shape[-1]) / values["x"].shape[-1]
    dims = ("sample", "x", "y")
    return xr.Dataset(
        {
            "permeability": (dims, values["x"].float().numpy()),
            "pressure": (dims, values["y"].numpy()),
        },
        coords={"x": nodes, "y": nodes},
    )


def with_walls(stored: xr.Dataset) -> xr.Dataset:
    """All four walls: no pressure, and the permeability of the next node inside."""
    nodes = np.append(stored.x, 1.0)
    inside = stored.isel(x=slice(1, None), y=slice(1, None))
    permeability = inside.permeability.reindex(x=nodes, y=nodes, method="nearest")
    pressure = inside.pressure.reindex(x=nodes, y=nodes, fill_value=0.0)
    return xr.Dataset({"permeability": permeability, "pressure": pressure})


@dataclass(frozen=True)
class Geometry:
    """How the files are taken: their fields, and what is said of them."""

    of: Callable[[xr.Dataset], xr.Dataset]
    boundary: str
    symmetries: tuple[str, ...]


AS_STORED = Geometry(lambda stored: stored, "periodic", ())
SQUARE = Geometry(with_walls, "dirichlet", ("reflections", "transposition"))


def neuralops(data: OperatorDataModule) -> Operator:
    return Foreign(neuralop_fno(SIZE, data), data)


def ours(data: OperatorDataModule, boundary: str) -> Operator:
    return FNO(1, 1, modes=SIZE.modes, width=SIZE.width, boundary=boundary, positions=True)


def multigrid(data: OperatorDataModule) -> Operator:
    return MgNO(1, 1, levels=4, width=16, depth=4, boundary="dirichlet")


NETWORKS: dict[str, tuple[Geometry, Callable[[OperatorDataModule], Operator]]] = {
    "neuralop": (AS_STORED, neuralops),
    "neuralop-square": (SQUARE, neuralops),
    "fno": (AS_STORED, partial(ours, boundary="periodic")),
    "fno-square": (SQUARE, partial(ours, boundary="dirichlet")),
    "mgno-square": (SQUARE, multigrid),
}


class Quiet(Clock):
    """A clock that does not validate on its way."""

    def _marks(self) -> int:
        return 0


def errors(module: Timed, geometry: Geometry, folder: Path) -> list[float]:
    """Mean relative L² errors of the averaged surrogate at the files' nodes, at each resolution."""
    surrogate, found = module.surrogate.eval().symmetrized(geometry.symmetries), []
    for n in RESOLUTIONS:
        stored = fields(folder / f"darcy_test_{n}.pt")
        truth = torch.from_numpy(stored.pressure.values)
        every = n // RESOLUTIONS[0] if isinstance(surrogate.operator, MgNO) else 1
        given = geometry.of(stored).permeability.values[:, None, ::every, ::every]
        with torch.no_grad():
            p = surrogate(torch.from_numpy(given.copy()))
        if every > 1:
            p = surrogate.grid.resample(p, surrogate.grid.resized(n + 1, n + 1))
        found.append(float(relative(p[:, 0, :n, :n], truth)))
    return found


def relative(p: Tensor, y: Tensor) -> Tensor:
    return ((p - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()


def trained(name: str, folder: Path, seconds: float, seed: int) -> tuple[list[float], str]:
    """Train one network; return its errors, and its size and speed as columns of the table."""
    geometry, build = NETWORKS[name]
    lightning.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as scratch:
        store_fields(
            {
                "train": geometry.of(fields(folder / "darcy_train_16.pt")),
                "test": geometry.of(fields(folder / "darcy_test_16.pt")),
            },
            Path(scratch) / "data", inputs=["permeability"], outputs=["pressure"], sample="sample",
            boundary=geometry.boundary, length=1.0, symmetries=geometry.symmetries, progress=False,
        )  # fmt: skip
        augment = bool(geometry.symmetries)
        data = OperatorDataModule(Path(scratch) / "data", batch_size=20, augment=augment, seed=seed)
        operator = build(data)
        foreign = isinstance(operator, Foreign)
        module = Timed(
            operator, data,
            optimizer=adam_for(operator.network) if foreign else SOAP,
            learning_rate=ADAM_RATE if foreign else SOAP_RATE, weight_decay=1e-4,
        )  # fmt: skip
        clock = Quiet(seconds, Path(scratch))
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=10**9, limit_val_batches=0, num_sanity_val_steps=0,
            gradient_clip_val=1.0, callbacks=[clock], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, data)
    speed = f"{count(module)} | {len(clock.times)} | {1e3 * statistics.median(clock.times):.0f}"
    return errors(module, geometry, folder), speed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of neuralop's files")
    parser.add_argument("--seconds", type=float, default=100, help="of training, for each network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(
        f"{options.seconds:g} s of training, {torch.get_num_threads()} threads, seeds {options.seeds}"
    )
    heads = "network", "parameters", "steps", "ms a step", *(f"{n}²" for n in RESOLUTIONS)
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in options.networks:
        runs = [trained(name, options.folder, options.seconds, seed) for seed in options.seeds]
        columns = zip(*(found for found, _ in runs), strict=True)
        cells = [f"{statistics.mean(c):.4f} ({min(c):.4f}–{max(c):.4f})" for c in columns]
        print(f"| {name} | {runs[0][1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
