"""The saved thing that a user predicts with."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import sobolev
from sobolev.datasets.loading.windows import Window
from sobolev.grids import AbstractGrid
from sobolev.grids.description import axis_coords, describe_grid, grid_from, grid_of
from sobolev.grids.restriction import at_resolution
from sobolev.grids.symmetries import averaged, check_symmetries, elements
from sobolev.grids.variables import Variable
from sobolev.operators import Operator, operator_from
from sobolev.surrogates.files import MEANING, read_folder, write_folder
from sobolev.surrogates.onnx import write_onnx
from sobolev.surrogates.rollout import continued, frames_as_inputs, trajectories
from sobolev.surrogates.tensors import fields_of


class Surrogate(nn.Module):
    """A neural operator with the meaning of its fields: names, units, grid, scales, origin.

    Fields go in and come out in physical units. The pressure of a Dirichlet problem is zero on the
    border, which the operator need not learn: what it has there is taken away, and less and less of
    it over one cell of ``grid``.

    Args:
        operator: the map between normalised fields.
        grid: the grid of the training data, flat or a sphere. Names, extents and kinds of its axes
            bind; sizes do not.
        inputs, outputs: the variables, in the order of the operator's channels.
        statistics: mean and standard deviation of each variable in the training data.
        provenance: JSON-able record of data, training and versions.
        symmetries: average the predictions over these; see ``symmetrized``.
        conserved: outputs whose integral over the domain is made that of an input, by a constant that
            is added to the prediction: the output's name, the input's.

    Raises:
        ValueError: for an operator that does not fit the grid or the variables, a variable that
            occurs twice among the inputs or outputs, has no statistics, or is constant in the
            training data, for symmetries that the grid does not have, and for conserved quantities
            that are not there or have other units than their inputs.

    >>> surrogate = Surrogate.load("runs/demo/surrogate")            # doctest: +SKIP
    >>> prediction = surrogate.predict(xr.open_dataset("input.nc"))  # doctest: +SKIP
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor
    _kept_of: Tensor
    _is_kept: Tensor

    def __init__(
        self,
        operator: Operator,
        grid: AbstractGrid,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        statistics: Mapping[str, tuple[float, float]],
        provenance: Mapping[str, Any] | None = None,
        symmetries: Sequence[str] = (),
        conserved: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        operator.check_grid(grid)
        for what, channels, variables in (
            ("in_channels", operator.in_channels, inputs),
            ("out_channels", operator.out_channels, outputs),
        ):
            if channels != len(variables):
                names = ", ".join(v.name for v in variables)
                raise ValueError(
                    f"the operator has {what}={channels}, the data have {len(variables)} ({names}); set {what} to "
                    f"{len(variables)}, if these are the data that it is for"
                )
        self.operator, self.grid = operator, grid
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.provenance = dict(provenance or {})
        check_symmetries(symmetries, grid)
        self.symmetries = tuple(symmetries)
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
        self.conserved = dict(conserved or {})
        self._prepare_conservation()

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``(batch, inputs, *space) -> (batch, outputs, *size)``, physical units, differentiable.

        ``size`` asks for a finer (or coarser) grid than the input's.
        """
        u = u.to(self.input_mean.dtype)
        self.operator.check(u)
        if not self.symmetries:
            return self._once(u, size)
        return averaged(self._once, u, size, self.grid, self.symmetries)

    def _once(self, u: Tensor, size: Sequence[int] | None) -> Tensor:
        normalised = (u - self.input_mean) / self.input_scale
        v = self.operator(normalised, size)
        if self.conserved:
            v = v + self._missing(normalised, v)
        v = v * self.output_scale + self.output_mean
        return self.grid.resized(*v.shape[2:]).without_border(v, cells=self.grid)

    def _missing(self, u: Tensor, v: Tensor) -> Tensor:
        """What normalised outputs lack of their inputs' integrals, per channel and unit of volume.

        In deviations from the means, where it does not drown in the rounding of a large mean.
        """
        source = self._kept_of
        ratio = self.input_scale[source] / self.output_scale
        offset = (self.input_mean[source] - self.output_mean) / self.output_scale
        return self._is_kept * (self._average(u)[:, source] * ratio + offset - self._average(v))

    def _average(self, u: Tensor) -> Tensor:
        """Over the domain, by the grid's quadrature."""
        weights = self.grid.resized(*u.shape[2:]).quadrature(u.device)
        share = (weights / weights.sum()).to(self.input_mean.dtype)
        return (u * share).sum(tuple(range(2, u.ndim)), keepdim=True)

    def _prepare_conservation(self) -> None:
        """The input channel of each output, and which outputs are kept: derived, hence not saved."""
        inputs, outputs = ([v.name for v in role] for role in (self.inputs, self.outputs))
        for output, source in self.conserved.items():
            if output not in outputs or source not in inputs:
                raise ValueError(
                    f"the integral of {output!r} cannot be that of {source!r}: the outputs are {', '.join(outputs)}, "
                    f"the inputs {', '.join(inputs)}"
                )
            units = (
                self.outputs[outputs.index(output)].units,
                self.inputs[inputs.index(source)].units,
            )
            if units[0] != units[1]:
                raise ValueError(
                    f"the integral of {output} in {units[0]} cannot be that of {source} in {units[1]}"
                )
        sources = [inputs.index(self.conserved.get(name, inputs[0])) for name in outputs]
        kept = [float(name in self.conserved) for name in outputs]
        flags = torch.tensor(kept, dtype=torch.float32, device="cpu")
        self.register_buffer("_kept_of", torch.tensor(sources, device="cpu"), persistent=False)
        self.register_buffer("_is_kept", flags.reshape(-1, *[1] * self.grid.ndim), persistent=False)

    def symmetrized(self, symmetries: Sequence[str] | None = None) -> Surrogate:
        """This surrogate, averaged over the symmetries of its equation, with shared weights:

            F̄(u) = 1/|G| Σ_g g⁻¹ F(g u).

        If turned data are as likely as the data themselves, the mean error is no larger, by
        convexity, and as a rule smaller; F̄ commutes with all of G to rounding. An application
        costs |G| of them: 8 on Darcy's square, 4 for quarter turns, 2 for Burgers. Shifts, which
        are too many, are left out; a Fourier operator without positions commutes with them anyway.
        A calibration of error bounds was one of F, and is left behind.

        Args:
            symmetries: names as in ``sobolev.grids.symmetries``; by default those that the
                recipe of the training data declares.

        Raises:
            ValueError: if the recipe declares none or is not known, or the grid does not have them.
        """
        if symmetries is None:
            from sobolev.certification.residuals import recipe_of  # which knows surrogates

            recipe = recipe_of(self)
            symmetries = recipe.symmetries
            if not elements(symmetries, self.grid.ndim)[1:]:
                raise ValueError(
                    f"{type(recipe).__name__} declares no symmetry to average over, but for shifts; name those that "
                    "its equation has"
                )
        check_symmetries(symmetries, self.grid)
        other = copy.copy(self)
        other.symmetries = tuple(symmetries)
        other.provenance = {k: v for k, v in self.provenance.items() if k != "calibration"}
        return other

    @torch.no_grad()
    def predict(
        self,
        dataset: xr.Dataset,
        *,
        resolution: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        certify: bool = False,
        tolerance: float | None = None,
    ) -> xr.Dataset:
        """Predict from an ``xr.Dataset`` at whatever resolution it has.

        Args:
            dataset: the input variables, each with the surrogate's space dimensions (in any order)
                and at most one more, the samples; or, for several frames, the quantity over ``time``
                as for ``rollout``. Space coordinates must be there; they say where
                the nodes lie. Those of a sphere are ``lat``, from north to south, and ``lon``, from
                0 eastward, in degrees or (if their units say so) in radians.
            resolution: nodes of the output, if other than the input's: one number for each axis, or
                n for all; on a sphere n stands for n × 2n.
            batch_size: fields at a time; by default so many that a batch has about 2¹⁸ nodes, which
                keeps a CPU's caches warm.
            certify: add ``error_bound``, ``(sample)``: an upper bound of the relative error of each
                prediction, whose attributes say in which norm, against what, and whether it is
                guaranteed (1, as for Darcy flow: in the energy norm, against the discrete solution
                on that grid) or calibrated (0: with which coverage; ``sobolev.training.calibrate``
                comes first).
            tolerance: have every guaranteed ``error_bound`` at most this. Predictions within it are
                accepted as they are; the classical solver makes the others good, starting from
                them. ``treatment`` flags which, ``iterations`` counts the solver's, all fields are
                float64, and the attributes ``prediction_seconds`` and ``improvement_seconds`` say
                what it cost.

        Returns:
            The output variables with names, units and coordinates.

        Raises:
            ValueError: for a missing variable or coordinate, another unit, another boundary kind,
                extent or sphere, samples that are called like an output, or values that are not
                finite – each named; for a certificate that is not to be had, with the reason.
            ArithmeticError: for a tolerance that is out of the classical solver's reach.
        """
        if not isinstance(dataset, xr.Dataset):
            raise ValueError(f"predict takes an xr.Dataset, got {type(dataset).__name__}")
        if batch_size is not None and not (
            isinstance(batch_size, (int, np.integer)) and batch_size >= 1
        ):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        from sobolev.certification import certificates  # which knows surrogates

        wanted = certify or tolerance is not None
        certificate = certificates.certificate_for(self, tolerance) if wanted else None
        separate = all(v.name in dataset for v in self.inputs)
        if self.window is not None and "time" in dataset.dims and not separate:
            continued(dataset, self, self.window.horizon)  # refuses other times
            dataset = frames_as_inputs(dataset, self)
        fields, grid, samples = fields_of(dataset, self.inputs, self.grid)
        name = "sample" if samples is None else str(samples.name)
        if name in (*(v.name for v in self.outputs), *(certificates.VARIABLES if wanted else ())):
            raise ValueError(
                f"the samples lie along {name!r}, which is an output's name; rename the dimension"
            )
        target = grid if resolution is None else at_resolution(grid, resolution)
        if certificate is not None and target != grid:
            raise ValueError(
                f"a certificate takes the input on the grid of the prediction, {_sizes(target)} nodes, and it is given "
                f"on {_sizes(grid)}; give it at that resolution, and leave resolution out"
            )
        started = time.perf_counter()
        values = self._predicted(fields, target, batch_size or comfortable_batch(target))
        seconds = time.perf_counter() - started
        added: dict[str, xr.Variable] = {}
        costs: dict[str, float] = {}
        if certificate is not None:
            found = certificates.certified(certificate, fields, values, target, tolerance)
            values, added = found.outputs, found.variables(certificate, name)
            costs = found.costs(seconds)
        arrays = values.numpy()
        result = xr.Dataset(
            {
                v.name: xr.Variable((name, *target.dims), arrays[:, i], v.attributes)
                for i, v in enumerate(self.outputs)
            }
            | added,
            axis_coords(target),
            {
                "Conventions": "CF-1.11",
                "source": f"sobolev {sobolev.__version__} surrogate: {type(self.operator).__name__}",
                "provenance": json.dumps(self.provenance, sort_keys=True),
                **costs,
            },
        )
        return result.isel(sample=0) if samples is None else result.assign_coords({name: samples})

    def _predicted(self, fields: Tensor, grid: AbstractGrid, batch_size: int) -> Tensor:
        """Predictions on ``grid``, on the CPU.

        Raises:
            ValueError: if they are not finite.
        """
        device = self.input_mean.device
        with evaluating(self):
            batches = [
                self(batch.to(device), size=grid.shape).cpu() for batch in fields.split(batch_size)
            ]
        values = torch.cat(batches)
        if not bool(values.isfinite().all()):
            raise ValueError(
                "the prediction is not finite: the input lies far outside the training data"
            )
        return values

    @property
    def window(self) -> Window | None:
        """The frames of one application: ``history`` in, ``horizon`` out, every ``stride``-th stored
        one; None for a map that is not in time."""
        found = self._data_record.get("window")
        return None if found is None else Window(*found)

    @property
    def interval(self) -> float | None:
        """Time between two successive predicted frames; None for a map that is not in time, or
        whose training data had no evenly spaced times."""
        return self._data_record.get("interval")

    @property
    def in_time(self) -> Window:
        """``window``, where there has to be one.

        Raises:
            ValueError: if there is none, or the variables are not its frames.
        """
        window = self.window
        if window is None:
            raise ValueError(
                "this surrogate maps single fields; only one trained on the windows of trajectories can be rolled out"
            )
        given, frames = window.inputs(self.quantities), window.outputs(self.quantities)
        found = [(v.name, v.units) for v in [*self.inputs[-len(given) :], *self.outputs]]
        if found != [(v.name, v.units) for v in [*given, *frames]]:
            names = ", ".join(v.name for v in [*self.inputs, *self.outputs])
            raise ValueError(f"{names} are not the frames of a {window}, as the provenance has it")
        return window

    @property
    def quantities(self) -> list[Variable]:
        """The physical quantities that are predicted: the outputs, whatever their frames."""
        return self.outputs if self.window is None else self.window.states(self.outputs)

    @property
    def _data_record(self) -> Mapping[str, Any]:
        """What the provenance says of the training data; nothing in surrogates made by hand."""
        found = self.provenance.get("data")
        return found if isinstance(found, Mapping) else {}

    def comparable(self, fields: Tensor) -> Tensor:
        """Fields in the units in which loss and scores measure them: a single quantity in its
        standard deviations, several each about its mean in the training data, (u − μ) / σ.

        An error of several quantities relative to them is then the same in all units, and that of
        predicting the means is 1. A quantity alone keeps the published ‖p − y‖ / ‖y‖.

        Args:
            fields: ``(..., quantities, *space)``, or with frames times quantities as channels.
        """
        count = len(self.quantities)
        mean, scale = (b[:count].to(fields) for b in (self.output_mean, self.output_scale))
        frames = fields.shape[-self.grid.ndim - 1] // count
        repeats = (frames, *[1] * self.grid.ndim)
        centred = fields - mean.repeat(repeats) if count > 1 else fields
        return centred / scale.repeat(repeats)

    @torch.no_grad()
    def rollout(
        self, dataset: xr.Dataset, frames: int, *, batch_size: int | None = None
    ) -> xr.Dataset:
        """Predict the frames that follow given ones, each application starting from what the last
        ones gave.

        Args:
            dataset: the predicted quantities over ``time``, as many frames as the surrogate takes
                (``window.history``), ``interval`` apart; static inputs without it; for the rest as
                for ``predict``. From a data set of stride 1:
                ``open_dataset(path, "test").isel(time=slice(0, surrogate.window.history))``.
            frames: how many to predict.
            batch_size: trajectories at a time; by default as for ``predict``.

        Returns:
            The quantities ``([sample,] time, *space)``, with time continued. ``stable_frames``,
            ``([sample])``, counts those before the first that is not finite or in which the root
            mean square of a quantity about its training mean exceeds ten times the largest of the
            given frames, or the training standard deviation if that is larger. ``NAME_drift``,
            ``([sample,] time)``, is (∫u(t) − ∫u₀) / ∫|u₀| with u₀ the last given frame: for a
            quantity of one sign, such as mass, the relative change of its integral.

            A rollout that blows up is returned, unlike what ``predict`` does: its frames are NaN
            from the first on that is not finite.

        Raises:
            ValueError: for a surrogate that is not in time, another number of given frames or
                another distance between them, and for inputs that ``predict`` refuses.
        """
        size = comfortable_batch(grid_of(dataset, self.grid)) if batch_size is None else batch_size
        with evaluating(self):
            return trajectories(self, dataset, frames, size)

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
        _check_provenance(meaning["provenance"])
        symmetries, conserved = meaning.get("symmetries", []), meaning.get("conserved", {})
        if not isinstance(conserved, dict):
            raise ValueError(f"conserved quantities are pairs of names, got {conserved!r}")
        return cls(
            operator, grid, inputs, outputs, unit, meaning["provenance"], symmetries, conserved
        )

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
            "symmetries": list(self.symmetries),
            "conserved": self.conserved,
        }


def load_run(path: str | Path) -> Surrogate:
    """The surrogate of a run folder, or of a surrogate folder."""
    path = Path(path)
    return Surrogate.load(path / "surrogate" if (path / "surrogate").is_dir() else path)


def comfortable_batch(grid: AbstractGrid) -> int:
    """Fields to predict at a time: about 2¹⁸ nodes, so that a CPU's caches stay warm and memory is
    bounded."""
    return max(1, 2**18 // math.prod(grid.shape))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def _check_provenance(provenance: Any) -> None:
    """Refuse a record from a file whose parts, which are read again, are no records."""
    data = provenance.get("data", {}) if isinstance(provenance, dict) else provenance
    recipe = data.get("recipe") if isinstance(data, dict) else data
    if not (isinstance(data, dict) and isinstance(recipe, dict | None)):
        raise ValueError(
            "the provenance needs an object of data, and in it one of their recipe or none"
        )
    window, interval = data.get("window"), data.get("interval")
    if window is not None:
        Window(*window)
    if interval is not None and not (type(interval) in (int, float) and 0 < interval < math.inf):
        raise ValueError(f"the interval between frames is a positive number, got {interval!r}")


def _sizes(grid: AbstractGrid) -> str:
    return " × ".join(map(str, grid.shape))


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
