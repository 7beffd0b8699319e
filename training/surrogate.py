"""The saved thing that a user predicts with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import sobolev
from sobolev.datasets.base import Variable
from sobolev.datasets.manifest import describe_grid, grid_from
from sobolev.datasets.store import axis_coords, describe
from sobolev.operators import Operator, operator_from
from sobolev.solvers import AbstractGrid, SphereGrid
from sobolev.training.export import write_onnx
from sobolev.training.fields import fields_of
from sobolev.training.surrogate_files import MEANING, read_folder, write_folder


class Surrogate(nn.Module):
    """A neural operator with the meaning of its fields: names, units, grid, scales, origin.

    Fields go in and come out in physical units. The pressure of a Dirichlet problem is set to zero
    on the border, which the operator need not learn.

    Args:
        operator: the map between normalised fields.
        grid: the grid of the training data, flat or a sphere. Names, extents and kinds of its axes
            bind; sizes do not.
        inputs, outputs: the variables, in the order of the operator's channels.
        statistics: mean and standard deviation of each variable in the training data.
        provenance: JSON-able record of data, training and versions.

    Raises:
        ValueError: for an operator that does not fit the grid or the variables, a variable that
            occurs twice among the inputs or outputs, has no statistics, or is constant in the
            training data.

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
        grid: AbstractGrid,
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
            found = [v.name for v in variables]
            if len(set(found)) < len(found):
                raise ValueError(f"a variable occurs twice among the {role}s: {', '.join(found)}")
            if missing := [name for name in found if name not in statistics]:
                raise ValueError(
                    f"the statistics lack {', '.join(missing)}; they hold {', '.join(statistics) or 'nothing'}"
                )
            for i, kind in enumerate(("mean", "scale")):
                values = torch.tensor(
                    [statistics[name][i] for name in found], dtype=torch.float32, device="cpu"
                )
                self.register_buffer(f"{role}_{kind}", values.reshape(-1, *[1] * grid.ndim))
        self._check_scales()

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``(batch, inputs, *space) -> (batch, outputs, *size)``, physical units, differentiable.

        ``size`` asks for a finer (or coarser) grid than the input's.
        """
        u = u.to(self.input_mean.dtype)
        self.operator.check(u)
        normalised = (u - self.input_mean) / self.input_scale
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
                the nodes lie. Those of a sphere are ``lat``, from north to south, and ``lon``, from
                0 eastward, in degrees or (if their units say so) in radians.
            resolution: nodes of the output, if other than the input's: one number for each axis, or
                n for all; on a sphere n stands for n × 2n.
            batch_size: fields at a time; by default so many that a batch has about 2¹⁸ nodes, which
                keeps a CPU's caches warm.

        Returns:
            The output variables with names, units and coordinates.

        Raises:
            ValueError: for a missing variable or coordinate, another unit, another boundary kind,
                extent or sphere, samples that are called like an output, or values that are not
                finite – each named.
        """
        if not isinstance(dataset, xr.Dataset):
            raise ValueError(f"predict takes an xr.Dataset, got {type(dataset).__name__}")
        if batch_size is not None and not (
            isinstance(batch_size, (int, np.integer)) and batch_size >= 1
        ):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        fields, grid, samples = fields_of(dataset, self.inputs, self.grid)
        name = "sample" if samples is None else str(samples.name)
        if name in (v.name for v in self.outputs):
            raise ValueError(
                f"the samples lie along {name!r}, which is an output's name; rename the dimension"
            )
        target = grid if resolution is None else at_resolution(grid, resolution)
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
        result = xr.Dataset(
            {
                v.name: xr.Variable((name, *target.dims), values[:, i], describe(v))
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
            FileExistsError: if ``path`` is a file, or a folder that holds anything but a surrogate.
            ValueError: for weights that are not float32 or float64.
        """
        write_folder(Path(path), self, self.meaning)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Surrogate:
        """Read a folder written by ``save``, in evaluation mode on the CPU. No code from the folder
        is run, and no memory taken for an operator that the weights do not fit.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: for an operator class that is not sobolev's, a pickle in the folder, or
                damaged files.
        """
        path = Path(path)
        meaning, state = read_folder(path)
        try:
            with torch.device("meta"):
                _fit(cls._from_meaning(meaning), state, assign=True)
            surrogate = _fit(cls._from_meaning(meaning), state)
            surrogate._check_scales()
        except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{path / MEANING} does not describe a surrogate: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path / MEANING}: {error}") from error
        return surrogate.eval()

    @classmethod
    def _from_meaning(cls, meaning: Mapping[str, Any]) -> Surrogate:
        """The surrogate with this ``meaning``, fresh weights and no scales."""
        inputs, outputs = ([Variable(**v) for v in meaning[role]] for role in ("inputs", "outputs"))
        for word in (word for v in [*inputs, *outputs] for word in asdict(v).values()):
            if not isinstance(word, str):
                raise ValueError(f"variables have names and units in words, got {word!r}")
        grid = grid_from(meaning["grid"])
        if math.prod(grid.shape) > torch.iinfo(torch.int64).max:
            raise ValueError(f"no field has {' × '.join(map(str, grid.shape))} nodes")
        unit = {v.name: (0.0, 1.0) for v in [*inputs, *outputs]}
        operator = operator_from(meaning["operator"])
        return cls(operator, grid, inputs, outputs, unit, meaning["provenance"])

    def _check_scales(self) -> None:
        for role, variables in (("input", self.inputs), ("output", self.outputs)):
            means, scales = (
                self.get_buffer(f"{role}_{kind}").flatten().tolist() for kind in ("mean", "scale")
            )
            for v, mean, scale in zip(variables, means, scales, strict=True):
                if scale == 0:
                    raise ValueError(
                        f"{v.name} is constant in the training data; there is nothing to learn from it"
                    )
                if not (math.isfinite(mean) and 0 < scale < math.inf):
                    raise ValueError(
                        f"{v.name} needs a finite mean and a positive standard deviation, got {mean:g} and {scale:g}"
                    )

    def export_onnx(self, path: str | Path) -> Path:
        """Write one ONNX file that predicts at any resolution, for ``onnxruntime`` and its kin.

        The graph takes ``inputs``, float32 ``(batch, inputs, *space)`` in physical units, and gives
        ``outputs``, ``(batch, outputs, *space)``; batch and sizes are free. Its ``metadata_props``
        hold JSON: ``operator``, ``grid``, ``inputs``, ``outputs``, ``provenance``, ``sha256`` (of
        the weights, as in ``surrogate.json``) and ``least_sizes``: on fewer nodes the operator has
        fewer modes, and the graph, which cannot say no, is another map. Before the file takes its
        place it is run at three resolutions and must agree with torch to 1e-5 of each output's
        standard deviation (of its amplitude, where that is larger) and the rounding of its mean.

        Raises:
            ImportError: if the packages of ``sobolev[onnx]`` are not installed.
            IsADirectoryError: if ``path`` is a folder.
            ValueError: for an operator that cannot be exported with a free resolution.
            ArithmeticError: if the graph and torch disagree.
        """
        return write_onnx(self, Path(path), self.meaning)

    @property
    def meaning(self) -> dict[str, Any]:
        """All but the weights, JSON-able."""
        return {
            "operator": self.operator.description,
            "grid": describe_grid(self.grid),
            "inputs": [asdict(v) for v in self.inputs],
            "outputs": [asdict(v) for v in self.outputs],
            "provenance": self.provenance,
        }


def at_resolution(grid: AbstractGrid, resolution: int | Sequence[int]) -> AbstractGrid:
    """``grid`` with other numbers of nodes: one per axis, or n for all; on a sphere n × 2n.

    >>> at_resolution(SphereGrid(8, 16), 12).shape
    (12, 24)

    Raises:
        ValueError: for a wrong number of sizes, sizes that are not whole numbers, or too few nodes.
    """
    if isinstance(resolution, (int, np.integer)):
        n = int(resolution)
        return grid.resized(*((n, 2 * n) if isinstance(grid, SphereGrid) else [n] * grid.ndim))
    try:
        sizes = tuple(resolution)
    except TypeError:
        raise ValueError(
            f"resolution needs a whole number, or one for each axis; got {resolution!r}"
        ) from None
    return grid.resized(*sizes)


def comfortable_batch(grid: AbstractGrid) -> int:
    """Fields to predict at a time: about 2¹⁸ nodes, so that a CPU's caches stay warm and memory is
    bounded."""
    return max(1, 2**18 // math.prod(grid.shape))


def _fit(surrogate: Surrogate, state: Mapping[str, Tensor], *, assign: bool = False) -> Surrogate:
    """``surrogate`` with the weights ``state``, copied or assigned.

    Raises:
        ValueError: if they are those of another operator.
    """
    try:
        surrogate.to(state["input_mean"].dtype).load_state_dict(state, assign=assign)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"the weights do not fit the operator described here: {error}") from error
    return surrogate
