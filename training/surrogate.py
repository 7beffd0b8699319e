"""The saved thing that a user predicts with."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import xarray as xr
from torch import Tensor, nn

import sobolev
from sobolev.datasets.base import Variable
from sobolev.datasets.store import axis_coords, describe
from sobolev.operators import Operator, operator_from
from sobolev.solvers import Axis, Grid

_SCHEMA = 1
_WEIGHTS, _MEANING = "model.safetensors", "surrogate.json"
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".npy", ".joblib")


class Surrogate(nn.Module):
    """A neural operator with the meaning of its fields: names, units, grid, scales, origin.

    Fields go in and come out in physical units. The pressure of a Dirichlet problem is set to zero
    on the border, which the operator need not learn.

    Args:
        operator: the map between normalised fields.
        grid: the grid of the training data. Its axes' names, lengths, origins and boundary kinds
            bind; sizes do not.
        inputs, outputs: the variables, in the order of the operator's channels.
        statistics: mean and standard deviation of each variable in the training data.
        provenance: JSON-able record of data, training and versions.

    >>> surrogate = Surrogate.load("runs/demo/surrogate")            # doctest: +SKIP
    >>> prediction = surrogate.predict(xr.open_dataset("input.nc"))  # doctest: +SKIP
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        operator: Operator,
        grid: Grid,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        statistics: Mapping[str, tuple[float, float]],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for what, channels, variables in (
            ("in_channels", operator.in_channels, inputs),
            ("out_channels", operator.out_channels, outputs),
        ):
            if channels != len(variables):
                names = ", ".join(v.name for v in variables)
                raise ValueError(
                    f"the operator has {what}={channels}, the data have {len(variables)} ({names}); set {what} to "
                    f"{len(variables)}"
                )
        operator.check_grid(grid)
        self.operator, self.grid = operator, grid
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.provenance = dict(provenance or {})
        for role, variables in (("input", inputs), ("output", outputs)):
            for v in variables:
                if not statistics[v.name][1] > 0:
                    raise ValueError(
                        f"{v.name} is constant in the training data; there is nothing to learn from it"
                    )
            for i, kind in enumerate(("mean", "scale")):
                values = torch.tensor(
                    [statistics[v.name][i] for v in variables], dtype=torch.float32, device="cpu"
                )
                self.register_buffer(f"{role}_{kind}", values.reshape(-1, *[1] * grid.ndim))

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``(batch, inputs, *space) -> (batch, outputs, *size)``, physical units, differentiable.

        ``size`` asks for a finer (or coarser) grid than the input's.
        """
        self.operator.check(u)
        normalised = (u.to(self.input_mean.dtype) - self.input_mean) / self.input_scale
        v = self.operator(normalised, size) * self.output_scale + self.output_mean
        return self.grid.resized(*v.shape[2:]).without_border(v)

    @torch.no_grad()
    def predict(
        self,
        dataset: xr.Dataset,
        *,
        resolution: int | Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> xr.Dataset:
        """Predict from an ``xr.Dataset`` at whatever resolution it has.

        Args:
            dataset: the input variables, each with the surrogate's space dimensions (in any order)
                and at most one more, the samples. Space coordinates must be there; they say where
                the nodes lie.
            resolution: nodes per axis of the output, if other than the input's.
            batch_size: fields at a time; by default so many that a batch has about 2¹⁸ nodes, which
                keeps a CPU's caches warm.

        Returns:
            The output variables with names, units and coordinates.

        Raises:
            ValueError: for a missing variable or coordinate, another unit, another boundary kind or
                extent, or values that are not finite – each named.
        """
        if not isinstance(dataset, xr.Dataset):
            raise ValueError(f"predict takes an xr.Dataset, got {type(dataset).__name__}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        fields, grid, samples = self._fields_of(dataset)
        target = grid if resolution is None else grid.resized(*_sizes(resolution, grid.ndim))
        device = self.input_mean.device
        was_training = self.training
        self.eval()
        try:
            batches = [
                self(batch.to(device), size=target.shape).cpu()
                for batch in fields.split(batch_size or comfortable_batch(target))
            ]
        finally:
            self.train(was_training)
        values = torch.cat(batches).numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                "the prediction is not finite: the input lies far outside the training data"
            )
        name = "sample" if samples is None else str(samples.name)
        dims = (name, *(axis.name for axis in target.axes))
        result = xr.Dataset(
            {
                v.name: xr.Variable(dims, values[:, i], describe(v))
                for i, v in enumerate(self.outputs)
            },
            axis_coords(target),
            {
                "Conventions": "CF-1.11",
                "source": f"sobolev {sobolev.__version__} surrogate: {type(self.operator).__name__}",
                "provenance": json.dumps(self.provenance, sort_keys=True),
            },
        )
        return result.isel(sample=0) if samples is None else result.assign_coords({name: samples})

    def save(self, path: str | Path) -> Path:
        """Write the folder ``path``: ``model.safetensors`` and ``surrogate.json``.

        An older surrogate there is replaced.

        Raises:
            FileExistsError: if ``path`` is a folder that holds anything but a surrogate.
        """
        path = Path(path)
        if path.is_dir() and (foreign := {f.name for f in path.iterdir()} - {_WEIGHTS, _MEANING}):
            raise FileExistsError(
                f"{path} holds {', '.join(sorted(foreign))}; save to another folder"
            )
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
            weights = safetensors.torch.save(state)
            (part / _WEIGHTS).write_bytes(weights)
            meaning = {
                "schema": _SCHEMA,
                "operator": self.operator.description,
                "axes": [asdict(axis) for axis in self.grid.axes],
                "inputs": [asdict(v) for v in self.inputs],
                "outputs": [asdict(v) for v in self.outputs],
                "provenance": self.provenance,
                "sha256": hashlib.sha256(weights).hexdigest(),
            }
            meaning["self_sha256"] = _digest(meaning)
            (part / _MEANING).write_text(json.dumps(meaning, indent=1) + "\n")
            for name in (_WEIGHTS, _MEANING):
                with (part / name).open("rb+") as handle:
                    os.fsync(handle.fileno())
            old = path.with_name(path.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.replace(old)
            part.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | Path) -> Surrogate:
        """Read a folder written by ``save``, in evaluation mode on the CPU. No code from the folder
        is run.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: for an operator class that is not sobolev's, a pickle in the folder, or
                damaged files.
        """
        path = Path(path)
        meaning = _read_meaning(path)
        try:
            weights = (path / _WEIGHTS).read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} holds no weights ({_WEIGHTS} is missing)") from None
        if hashlib.sha256(weights).hexdigest() != meaning["sha256"]:
            raise ValueError(
                f"{path / _WEIGHTS} is damaged: its SHA-256 is not the one in {_MEANING}"
            )
        try:
            state = safetensors.torch.load(weights)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path / _WEIGHTS} is no safetensors file: {error}") from error
        try:
            operator = _operator_of(meaning["operator"], path)
            inputs, outputs = (
                [Variable(**v) for v in meaning[role]] for role in ("inputs", "outputs")
            )
            grid = Grid(*(Axis(**a) for a in meaning["axes"]))
            unit = {v.name: (0.0, 1.0) for v in [*inputs, *outputs]}
            surrogate = cls(operator, grid, inputs, outputs, unit, meaning["provenance"])
            surrogate.to(state["input_mean"].dtype).load_state_dict(state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path / _MEANING} does not describe a surrogate: {error}") from error
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {path} do not fit the operator described there: {error}"
            ) from error
        return surrogate.eval()

    def _fields_of(self, dataset: xr.Dataset) -> tuple[Tensor, Grid, xr.DataArray | None]:
        """Input tensor ``(sample, input, *space)``, its grid, and the sample coordinate if there
        are samples."""
        missing = [v.name for v in self.inputs if v.name not in dataset]
        if missing:
            raise ValueError(
                f"the dataset lacks {', '.join(missing)}; it holds "
                f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}"
            )
        grid = Grid(*(self._axis_of(dataset, axis) for axis in self.grid.axes))
        names = [axis.name for axis in grid.axes]
        arrays = []
        for variable in self.inputs:
            array = dataset[variable.name]
            units = array.attrs.get("units")
            if units is not None and units != variable.units:
                raise ValueError(
                    f"{variable.name} is in units {units!r}; the surrogate was trained on {variable.units!r}"
                )
            extra = [dim for dim in array.dims if dim not in names]
            if len(extra) > 1 or len(array.dims) - len(extra) != len(names):
                raise ValueError(
                    f"{variable.name} has dimensions {array.dims}; expected {', '.join(names)} and at most one more"
                )
            arrays.append(array.transpose(*extra, *names))
        if any(np.iscomplexobj(a) or not a.size for a in arrays):
            raise ValueError("the input variables must be real and hold at least one field")
        batched = [a.dims[0] for a in arrays if a.ndim > len(names)]
        values = np.stack(
            [np.asarray(a.values, dtype=np.float64) for a in arrays], axis=-len(names) - 1
        )
        fields = torch.from_numpy(values if batched else values[None])
        for i, variable in enumerate(self.inputs):
            finite = fields[:, i].flatten(1).isfinite().all(dim=1)
            if not bool(finite.all()):
                first = int((~finite).nonzero()[0, 0])
                raise ValueError(
                    f"{variable.name} holds NaN or infinite values (first in sample {first})"
                )
        if not batched:
            return fields, grid, None
        name = str(batched[0])
        labels = (
            arrays[0][name]
            if name in arrays[0].coords
            else xr.DataArray(np.arange(len(fields)), dims=name)
        )
        return fields, grid, labels.rename(name)

    @staticmethod
    def _axis_of(dataset: xr.Dataset, axis: Axis) -> Axis:
        """``axis`` with the size that ``dataset`` has, after checking that its nodes lie where they
        should."""
        if axis.name not in dataset.coords:
            raise ValueError(
                f"the dataset has no coordinate {axis.name!r} to say where its nodes lie"
            )
        coordinate = dataset[axis.name]
        kind = coordinate.attrs.get("boundary", axis.boundary)
        if kind != axis.boundary:
            raise ValueError(
                f"axis {axis.name!r} is {kind} in the dataset; the surrogate was trained on {axis.boundary}"
            )
        nodes = np.asarray(coordinate.values, dtype=np.float64)
        sized = replace(axis, size=len(nodes))
        expected = sized.points().numpy()
        if not np.allclose(nodes, expected, rtol=0, atol=1e-3 * sized.spacing):
            where = {
                "periodic": "the end point left out",
                "dirichlet": "both end points included",
                "neumann": "cell centres",
            }[axis.boundary]
            raise ValueError(
                f"the {len(nodes)} nodes of {axis.name!r} run from {nodes[0]:.6g} to {nodes[-1]:.6g}; the surrogate "
                f"needs evenly spaced nodes from {expected[0]:.6g} to {expected[-1]:.6g} ({axis.boundary}: {where})"
            )
        return sized


def comfortable_batch(grid: Grid) -> int:
    """Fields to predict at a time: about 2¹⁸ nodes, so that a CPU's caches stay warm and memory is
    bounded."""
    return max(1, 2**18 // math.prod(grid.shape))


def _read_meaning(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no surrogate folder at {path}")
    pickles = [file.name for file in path.iterdir() if file.suffix in _PICKLES]
    if pickles:
        raise ValueError(
            f"{path} holds {', '.join(sorted(pickles))}, which could run code when opened; a surrogate is made of "
            f"{_WEIGHTS} and {_MEANING} alone. Remove it if you trust the rest"
        )
    try:
        meaning = json.loads((path / _MEANING).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} holds no surrogate ({_MEANING} is missing)") from None
    except ValueError as error:
        raise ValueError(f"{path / _MEANING} is damaged: {error}") from error
    keys = {"schema", "operator", "axes", "inputs", "outputs", "provenance", "sha256"}
    if not isinstance(meaning, dict) or keys - set(meaning):
        raise ValueError(
            f"{path / _MEANING} is damaged: it lacks {', '.join(sorted(keys - set(meaning)))}"
        )
    if meaning.pop("self_sha256", None) != _digest(meaning):
        raise ValueError(
            f"{path / _MEANING} is damaged or was edited: its checksum does not match its content"
        )
    if meaning["schema"] != _SCHEMA:
        raise ValueError(
            f"{path / _MEANING} has schema {meaning['schema']}; this version of sobolev reads {_SCHEMA}"
        )
    return meaning


def _digest(meaning: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _operator_of(description: dict[str, Any], path: Path) -> Operator:
    try:
        return operator_from(description)
    except ValueError as error:
        raise ValueError(f"{path / _MEANING}: {error}") from error


def _sizes(resolution: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    if isinstance(resolution, (int, np.integer)):
        return (int(resolution),) * ndim
    return tuple(resolution)
