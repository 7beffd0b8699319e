"""The saved thing that a user predicts with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from jaxtyping import Shaped
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.restriction import Resolution, at_resolution
from sobolev.grids.symmetries import elements
from sobolev.grids.variables import Variable
from sobolev.operators import Operator, operator_from
from sobolev.surrogates import onnx
from sobolev.surrogates.datasets import dataset_of
from sobolev.surrogates.files import MEANING, read_folder, surrogate_folder, write_folder
from sobolev.surrogates.meaning import Meaning
from sobolev.surrogates.normalised import NormalisedOperator
from sobolev.surrogates.origin import declared_symmetries
from sobolev.surrogates.predicting import predicted, trajectories
from sobolev.surrogates.provenance import Provenance
from sobolev.surrogates.tensors import given_inputs


class Surrogate(NormalisedOperator):
    """A neural operator with the meaning of its fields: names, units, grid, scales, origin.

    Fields go in and come out in physical units.

    Args:
        operator: the map between normalised fields.
        grid, inputs, outputs, provenance, symmetries, conserved, mask: as for ``Meaning``; the provenance may
            be given as JSON.
        statistics: mean and standard deviation of each variable in the training data.

    Raises:
        ValueError: as ``Meaning`` and ``NormalisedOperator``.

    >>> surrogate = Surrogate.load("runs/demo/surrogate")            # doctest: +SKIP
    >>> prediction = surrogate.predict(xr.open_dataset("input.nc"))  # doctest: +SKIP
    """

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
        mask: str | None = None,
    ) -> None:
        record = Provenance.from_json(provenance or {})
        variables = tuple(inputs), tuple(outputs)
        meaning = Meaning(grid, *variables, record, tuple(symmetries), dict(conserved or {}), mask)
        super().__init__(operator, meaning, statistics)

    def predict(
        self,
        dataset: xr.Dataset,
        *,
        resolution: Resolution | None = None,
        batch_size: int | None = None,
    ) -> xr.Dataset:
        """Predict from an ``xr.Dataset`` at whatever resolution it has.

        ``sobolev.certification.certified`` does the same with an error bound for each prediction.

        Args:
            dataset: the input variables, each with the surrogate's space dimensions (in any order)
                and at most one more, the samples; or the quantity over ``time``: frames as for
                ``rollout``, or any number of a single trajectory where one gives the next. Space
                coordinates must be there; they say where the nodes lie. They may fall; those of a
                sphere are in degrees or (if their units say so) in radians, in either direction and from
                any meridian, under names or units that CF knows. What is returned is arranged alike, but
                at another ``resolution`` in the grid's own order.
            resolution: nodes of the output, if other than the input's: one number for each axis, or
                n for all; on a sphere n stands for n × 2n.
            batch_size: fields at a time; by default so many that a batch has about 2¹⁸ nodes.

        Returns:
            The output variables with names, units, space coordinates and the coordinates along the
            samples, except those that a data set says of its own solves. ``time`` is that of the
            prediction, and not there if it is not known or there are several.

        Raises:
            ValueError: for a missing variable or coordinate, another unit, another boundary kind,
                extent or sphere, samples or labels that are called like an output, or values that
                are not finite – each named.
        """
        given = given_inputs(dataset, self.meaning)
        grid = given.grid if resolution is None else at_resolution(given.grid, resolution)
        values = predicted(self, given.fields, grid, batch_size)
        fields = dict(zip(self.meaning.outputs, values.unbind(1), strict=True))
        return dataset_of(
            fields, given, source=f"surrogate: {type(self.operator).__name__}",
            provenance=self.provenance, grid=grid,
        )  # fmt: skip

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
            The quantities ``([sample,] time, *space)``, with time continued, and for each trajectory
            ``stable_frames`` and ``NAME_drift`` (see ``sobolev.surrogates.rollout.Observed``). A rollout
            that blows up is returned: its frames are NaN from the first on that is not finite.

        Raises:
            ValueError: for a surrogate that is not in time, another number of given frames or
                another distance between them, and for inputs that ``predict`` refuses.
        """
        return trajectories(self, dataset, frames, batch_size)

    def symmetrized(self, symmetries: Sequence[str] | None = None) -> Surrogate:
        """Return this surrogate, averaged over the symmetries of its equation, with shared weights:

            F̄(u) = 1/|G| Σ_g g⁻¹ F(g u).

        If turned data are as likely as the data themselves, the mean error is no larger, by
        convexity, and as a rule smaller; F̄ commutes with all of G to rounding. An application
        costs |G| of them: 8 on Darcy's square, 4 for quarter turns, 2 for Burgers. Shifts, which
        are too many, are left out; a Fourier operator without positions commutes with them anyway.
        A calibration of error bounds was one of F, and is left behind.

        Args:
            symmetries: names as in ``sobolev.grids.symmetries``; by default those that the training
                data declare.

        Raises:
            ValueError: if they declare none, or the grid does not have them.
        """
        if symmetries is None:
            symmetries = declared_symmetries(self.provenance.data)
            if not elements(symmetries, self.grid.ndim)[1:]:
                raise ValueError(
                    "the recipe of the training data declares no symmetry to average over, but for shifts; name "
                    "those that its equation has"
                )
        record = self.provenance.with_parts(calibration=None)
        other = copy.copy(self)
        other.meaning = replace(self.meaning, symmetries=tuple(symmetries), provenance=record)
        return other

    def save(self, path: str | Path) -> Path:
        """Write the folder ``path``: ``model.safetensors`` and ``surrogate.json``.

        An older surrogate there is replaced.

        Raises:
            FileExistsError: if ``path`` is a file, or a folder that holds anything but a surrogate.
            ValueError: for weights that are not float32 or float64.
        """
        write_folder(Path(path), self, self.to_json())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, operators: Sequence[type[Operator]] = ()) -> Surrogate:
        """Read a folder written by ``save``, or the run folder around it, in evaluation mode on the CPU.

        No code from the folder is run, and no memory taken for an operator that the weights do not fit.

        Args:
            path: the folder.
            operators: classes from outside the package that the operator may be of.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: for an operator class that is neither sobolev's nor given, a pickle in the
                folder, or damaged files.
        """
        path = surrogate_folder(path)
        content, state = read_folder(path)
        try:
            with torch.device("meta"):  # refuses weights of another shape before memory is taken
                cls._from_json(content, operators)._fill(state, assign=True)
            surrogate = cls._from_json(content, operators)._fill(state)
            surrogate.check_scales()
        except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{path / MEANING} does not describe a surrogate: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path / MEANING}: {error}") from error
        return surrogate.eval()

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
        return onnx.write_onnx(self, self.to_json(), Path(path))

    def to_json(self) -> dict[str, Any]:
        """Return all but the weights as JSON."""
        return {"operator": self.operator.description, **self.meaning.to_json()}

    @classmethod
    def _from_json(
        cls, content: Mapping[str, Any], operators: Sequence[type[Operator]]
    ) -> Surrogate:
        """Return the surrogate of this meaning, with fresh weights and no scales."""
        meaning = Meaning.from_json(content)
        unit = {v.name: (0.0, 1.0) for v in (*meaning.inputs, *meaning.outputs)}
        operator = operator_from(content["operator"], operators)
        return cls(operator, **{**vars(meaning), "statistics": unit})

    def _fill(
        self, state: Mapping[str, Shaped[Tensor, " ..."]], *, assign: bool = False
    ) -> Surrogate:
        """Take weights, copied or assigned; refuse those of another operator."""
        try:
            self.to(state["input_mean"].dtype).load_state_dict(state, assign=assign)
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"the weights do not fit the operator described here: {error}"
            ) from error
        return self
