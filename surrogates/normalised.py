"""An operator between fields in physical units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.datasets.loading.windows import Window
from sobolev.grids import AbstractGrid
from sobolev.grids.symmetries import averaged
from sobolev.grids.variables import Variable
from sobolev.operators.base import Operator, check_tensor
from sobolev.surrogates.conservation import KeptIntegrals
from sobolev.surrogates.meaning import Meaning, check_channels
from sobolev.surrogates.provenance import Provenance
from sobolev.surrogates.rollout import State, rollout


class NormalisedOperator(nn.Module):
    """An operator between normalised fields, with the scales that make them physical ones.

    The pressure of a Dirichlet problem is zero on the border, which the operator need not learn. The
    values that it has there are subtracted, with a weight that falls from 1 on the border to 0 within one
    cell of the training grid. Where ``meaning`` says so, conserved quantities keep their integrals, and
    predictions are averaged over symmetries.

    Args:
        operator: the map between normalised fields.
        meaning: of its channels.
        statistics: mean and standard deviation of each variable in the training data.

    Raises:
        ValueError: for an operator that does not fit the grid or the variables, and a variable that has
            no statistics or is constant in the training data.
    """

    input_mean: Float[Tensor, " inputs *ones"]
    input_scale: Float[Tensor, " inputs *ones"]
    output_mean: Float[Tensor, " outputs *ones"]
    output_scale: Float[Tensor, " outputs *ones"]

    def __init__(
        self,
        operator: Operator,
        meaning: Meaning,
        statistics: Mapping[str, tuple[float, float]],
    ) -> None:
        super().__init__()
        operator.check_grid(meaning.grid)
        check_channels("in_channels", operator.in_channels, meaning.inputs)
        check_channels("out_channels", operator.out_channels, meaning.outputs)
        self.operator = operator
        self.meaning = meaning
        self._register("input", meaning.inputs, statistics)
        self._register("output", meaning.outputs, statistics)
        self.check_scales()
        self.integrals: KeptIntegrals | None = None
        if meaning.conserved:
            self.integrals = KeptIntegrals(
                meaning.grid, meaning.inputs, meaning.outputs, meaning.conserved
            )

    @property
    def grid(self) -> AbstractGrid:
        """The grid of the training data."""
        return self.meaning.grid

    @property
    def inputs(self) -> list[Variable]:
        """The variables of the input channels."""
        return list(self.meaning.inputs)

    @property
    def outputs(self) -> list[Variable]:
        """The variables of the output channels."""
        return list(self.meaning.outputs)

    @property
    def quantities(self) -> list[Variable]:
        """The physical quantities that are predicted: the outputs, whatever their frames."""
        return self.meaning.quantities

    @property
    def window(self) -> Window | None:
        """The frames of one application, or None for a map that is not in time."""
        return self.meaning.window

    @property
    def in_time(self) -> Window:
        """The ``window``, where there has to be one.

        Raises:
            ValueError: if there is none, or the variables are not its frames.
        """
        return self.meaning.in_time

    @property
    def interval(self) -> float | None:
        """Time between two successive predicted frames, where it is known."""
        return self.provenance.data.interval

    @property
    def symmetries(self) -> tuple[str, ...]:
        """The symmetries that predictions are averaged over."""
        return self.meaning.symmetries

    @property
    def conserved(self) -> dict[str, str]:
        """The outputs whose integrals are made those of inputs."""
        return dict(self.meaning.conserved)

    @property
    def provenance(self) -> Provenance:
        """The record of data, training and versions, which reads like the JSON that it is saved as."""
        return self.meaning.provenance

    def record(self, **parts: Any) -> None:
        """Replace parts of the provenance, given as records or as JSON; None takes one away."""
        self.meaning = replace(self.meaning, provenance=self.provenance.with_parts(**parts))

    def forward(
        self, u: Float[Tensor, "batch inputs *space"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch outputs *size"]:
        """Predict in physical units, differentiably; ``size`` asks for a finer (or coarser) grid than the
        input's."""
        check_tensor(u, type(self).__name__)
        u = u.to(self.input_mean.dtype)
        self.operator.check(u)
        if not self.symmetries:
            return self._applied(u, size)
        unsigned = self.meaning.unsigned
        return averaged(self._applied, u, size, self.grid, self.symmetries, unsigned=unsigned)

    def _applied(
        self, u: Float[Tensor, "batch inputs *space"], size: Sequence[int] | None
    ) -> Float[Tensor, "batch outputs *size"]:
        """Return one application of the operator."""
        normalised = (self._straightened(u) - self.input_mean) / self.input_scale
        domain = self.domain_of(u)
        if domain is not None:
            self._check_size(u, size)
            numbers, fields = normalised.tensor_split([self.meaning.unsigned - 1], dim=1)
            normalised = torch.cat([numbers, fields * domain], dim=1)
        v = self.operator(normalised, size)
        if self.integrals is not None:
            means = self.input_mean, self.output_mean
            v = self.integrals(normalised, v, means, (self.input_scale, self.output_scale))
        v = v * self.output_scale + self.output_mean
        v = v if domain is None else v * domain
        return self.grid.resized(*v.shape[2:]).without_border(v, cells=self.grid)

    def _straightened(
        self, u: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch inputs *space"]:
        """Return inputs with the logarithms of those numbers of which ratios count."""
        parameters = self.meaning.parameters
        if all(parameter.scale == "linear" for parameter in parameters):
            return u
        numbers = [p.straightened(u[:, i : i + 1]) for i, p in enumerate(parameters)]
        return torch.cat([*numbers, u[:, len(parameters) :]], dim=1)

    def domain_of(
        self, u: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch 1 *space"] | None:
        """Return the mask among input channels, 1 in the domain and 0 outside; None for whole boxes."""
        if self.meaning.mask is None:
            return None
        place = self.meaning.unsigned - 1
        return u[:, place : place + 1]

    def _check_size(
        self, u: Float[Tensor, "batch inputs *space"], size: Sequence[int] | None
    ) -> None:
        """Refuse other nodes than those on which the domain is known."""
        if size is not None and tuple(size) != tuple(u.shape[2:]):
            raise ValueError(
                f"the domain is known at the {tuple(u.shape[2:])} nodes of its mask, and the output was asked for at "
                f"{tuple(size)}; give mask and inputs at the nodes that are wanted"
            )

    def unrolled(
        self,
        inputs: Float[Tensor, "batch inputs ..."],
        frames: int,
        *,
        gradient_frames: int | None = None,
    ) -> Float[Tensor, "batch frames quantities ..."]:
        """Predict the ``frames`` that follow ``inputs``, as ``rollout`` does.

        Raises:
            ValueError: for a surrogate that is not in time, or counts below 1.
        """
        return rollout(
            self,
            inputs.to(self.input_mean.dtype),
            frames,
            window=self.in_time,
            quantities=len(self.quantities),
            gradient_frames=gradient_frames,
        )

    def state_of(self, inputs: Float[Tensor, "batch inputs ..."]) -> State:
        """Return static inputs and frames of input channels.

        Raises:
            ValueError: for a surrogate that is not in time.
        """
        return State.of(inputs, self.in_time.history, len(self.quantities))

    def comparable(
        self,
        fields: Float[Tensor, "*lead_and_space"],
        inputs: Float[Tensor, "batch inputs *space"] | None = None,
    ) -> Float[Tensor, "*lead_and_space"]:
        """Return fields in the units in which loss and scores measure them: a single quantity in its
        standard deviations, several each about its mean in the training data, (u − μ) / σ.

        An error of several quantities relative to them is then the same in all units, and that of
        predicting the means is 1. A quantity alone keeps the published ‖p − y‖ / ‖y‖.

        Args:
            fields: ``(..., quantities, *space)``, or with frames times quantities as channels.
            inputs: that they belong to, whose mask says where the domain is; norms are over it alone.
        """
        ndim = self.grid.ndim
        count = len(self.quantities)
        mean, scale = (b[:count].to(fields) for b in (self.output_mean, self.output_scale))
        repeats = (fields.shape[-ndim - 1] // count, *[1] * ndim)
        centred = fields - mean.repeat(repeats) if count > 1 else fields
        measured = centred / scale.repeat(repeats)
        domain = None if inputs is None else self.domain_of(inputs)
        if domain is None:
            return measured
        lead = measured.ndim - domain.ndim
        return measured * domain.reshape(len(domain), *[1] * (lead + 1), *domain.shape[2:]).to(
            measured
        )

    def check_scales(self) -> None:
        """Refuse scales that are not positive and finite, and means that are not finite.

        Raises:
            ValueError: naming the variable.
        """
        meaning = self.meaning
        for role, variables in (("input", meaning.inputs), ("output", meaning.outputs)):
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

    def _register(
        self,
        role: str,
        variables: Sequence[Variable],
        statistics: Mapping[str, tuple[float, float]],
    ) -> None:
        """Keep the means and scales of some variables."""
        if missing := [v.name for v in variables if v.name not in statistics]:
            raise ValueError(
                f"the statistics lack {', '.join(missing)}; they hold {', '.join(statistics) or 'nothing'}"
            )
        for i, kind in enumerate(("mean", "scale")):
            values = [self._statistics_of(v, role, statistics)[i] for v in variables]
            buffer = torch.tensor(values, dtype=torch.float32, device="cpu")
            shaped = buffer.reshape(-1, *[1] * self.grid.ndim)
            self.register_buffer(f"{role}_{kind}", shaped)

    def _statistics_of(
        self, variable: Variable, role: str, statistics: Mapping[str, tuple[float, float]]
    ) -> tuple[float, float]:
        """Return mean and scale of a variable: the mask as it is, and constant inputs about their value."""
        if role == "input" and variable.name == self.meaning.mask:
            return 0.0, 1.0
        mean, scale = statistics[variable.name]
        if role == "input" and scale == 0 and math.isfinite(mean):
            warnings.warn(
                f"{variable.name} is constant in the training data, {mean:g}: nothing can be learned from it, and it "
                "is kept out of the normalisation",
                stacklevel=2,
            )
            return mean, 1.0
        return mean, scale
