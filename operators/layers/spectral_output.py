"""The last layer of the spatio-temporal Fourier neural operator: linear in its weights, a Fourier
series in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.operators.layers.fourier import (
    FourierModes,
    Transforms,
    analysis_matrix,
    synthesis_matrix,
)
from sobolev.operators.layers.resampling import resampled
from sobolev.operators.layers.spectral_conv import full_precision


class SpectralOutput(nn.Module):
    """Q: r ↦ Σ_{k,m} (R_{k,m} r̂_{k,m} + b_{k,m}) e^{2πi(k·x + mt/T)}, real part, one channel at a
    time.

    R and b are the weights, in which the output is linear. r̂ are the coefficients of r at τ_0 … τ_n,
    n ``latent_steps`` apart by h = ``horizon`` / n, zero for earlier times on a period T = (horizon +
    h)(1 + padding); the series is evaluated at any t, and beyond the horizon it extrapolates until it
    repeats itself. Derivatives in time are exact. δ in the paper's δ·b is a learning rate, left to the
    optimiser.
    """

    CHANNEL_AXES: ClassVar = {"weight": (-2,), "bias": (-2,)}

    def __init__(
        self,
        channels: int,
        modes: Sequence[int],
        *,
        latent_steps: int,
        horizon: float,
        step: float,
        padding: float,
        bias: bool,
        solenoidal: bool,
    ) -> None:
        super().__init__()
        kinds = ("periodic",) * (len(modes) - 1) + ("neumann",)
        self.modes = FourierModes(tuple(modes), kinds, padding)
        self.latent_steps = latent_steps
        self.step = step
        self.horizon = positive_time("horizon", horizon)
        self.solenoidal = solenoidal
        self.weight = nn.Parameter(torch.empty(*self.modes.block, channels, 2))
        nn.init.uniform_(self.weight, 0.0, 0.5)
        self.bias = nn.Parameter(torch.zeros(*self.modes.block, channels, 2)) if bias else None

    @property
    def step(self) -> float:
        """The spacing of the output frames, in input spacings; may be set."""
        return self._step

    @step.setter
    def step(self, value: float) -> None:
        self._step = positive_time("step", value)

    @property
    def spacing(self) -> float:
        """h, the time between latent frames."""
        return self.horizon / self.latent_steps

    @property
    def period(self) -> float:
        """T, in input spacings."""
        return (self.horizon + self.spacing) * (1 + self.modes.padding)

    def forward(
        self,
        r: Float[Tensor, "batch channels *space latent"],
        size: Sequence[int] | None = None,
        *,
        step: float | None = None,
    ) -> Float[Tensor, "batch channels *size t"]:
        """Return r(x, 0) + Q[r] at t = ``step``, 2 ``step``, …; the last entry of ``size``, of the output,
        is t_out.

        By default on the space grid of r, at ``latent_steps`` times, with the operator's step.
        """
        q = self._evaluated(r, size, step, order=0)
        start = resampled(r[..., 0], q.shape[2:-1], self.modes.boundary[:-1])[..., None]
        return solenoidal(start + q) if self.solenoidal else start + q

    def time_derivative(
        self,
        r: Float[Tensor, "batch channels *space latent"],
        size: Sequence[int] | None = None,
        *,
        step: float | None = None,
    ) -> Float[Tensor, "batch channels *size t"]:
        """Return ∂t of ``forward``, per input spacing."""
        q = self._evaluated(r, size, step, order=1)
        return solenoidal(q) if self.solenoidal else q

    @torch.no_grad()
    def embed(self, smaller: SpectralOutput) -> None:
        """Take over the weights of an output with fewer modes; set the others to zero."""
        inner = [
            slice(n // 2 - few // 2, n // 2 + few // 2)
            for n, few in zip(self.modes.block[:-1], smaller.modes.block[:-1], strict=True)
        ]
        inner.append(slice(0, smaller.modes.block[-1]))
        self.weight.zero_()[tuple(inner)] = smaller.weight
        if self.bias is not None and smaller.bias is not None:
            self.bias.zero_()[tuple(inner)] = smaller.bias

    def _evaluated(
        self,
        r: Float[Tensor, "batch channels *space latent"],
        size: Sequence[int] | None,
        step: float | None,
        order: int,
    ) -> Float[Tensor, "batch channels *size t"]:
        *space, steps = (*r.shape[2:-1], self.latent_steps) if size is None else size
        step = self.step if step is None else step
        self._check_times(steps, step)
        with full_precision(r):
            r = r if r.dtype == torch.float64 else r.float()
            transforms = self._transforms(r, space, steps, step, order)
            c = transforms.analysis(r.movedim(1, -1))
            w = transforms.kept(self.weight).to(c.dtype)  # (modes, channels, 2)
            real = c[:, 0] * w[..., 0] - c[:, 1] * w[..., 1]
            imaginary = c[:, 0] * w[..., 1] + c[:, 1] * w[..., 0]
            product = torch.stack([real, imaginary], dim=1)
            if self.bias is not None:
                product = product + transforms.kept(self.bias).to(c.dtype).movedim(-1, 0)
            return transforms.synthesis(product).movedim(-1, 1)

    def _transforms(
        self,
        r: Float[Tensor, "batch channels *space latent"],
        space: Sequence[int],
        steps: int,
        step: float,
        order: int,
    ) -> Transforms:
        """Return the transforms from r to its modes and to the ``order``-th time derivative of the series at the output
        times."""
        frames = self.latent_steps + 1
        t = self.modes.between((*r.shape[2:-1], frames), (*space, frames), r)
        m = torch.arange(len(t.frequencies[-1]), dtype=torch.float64, device=r.device)
        rate = 2 * math.pi / self.period * m
        tau = self.spacing * torch.arange(frames, dtype=torch.float64, device=r.device)
        weight = torch.full_like(tau[:, None], self.spacing / self.period)
        analysis = analysis_matrix(tau[:, None] * rate, weight, real_input=True)
        times = step * torch.arange(1, steps + 1, dtype=torch.float64, device=r.device)
        # each derivative turns the phase by a quarter and multiplies by the rate
        phase = times[:, None] * rate + order * math.pi / 2
        synthesis = synthesis_matrix(phase, real_output=True) * torch.cat([rate, rate]) ** order
        return t._replace(
            size=(*space, steps),
            forward=[*t.forward[:-1], analysis.to(r.dtype)],
            backward=[*t.backward[:-1], synthesis.to(r.dtype)],
        )

    def _check_times(self, steps: int, step: float) -> None:
        if not step > 0:
            raise ValueError(f"step is a time, greater than 0; got {step}")
        if torch.compiler.is_exporting():  # the number of frames stays free there
            return
        if steps * step > self.period * (1 + 1e-9):  # n frames every period / n are right
            raise ValueError(
                f"{steps} frames every {step} reach t = {steps * step}, but after {self.period:g} the output repeats "
                f"itself; the operator was built for horizon={self.horizon:g}"
            )


def positive_time(name: str, value: float) -> float:
    """Return a plain number, JSON-able.

    Raises:
        ValueError: unless it is positive and finite.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is a time, greater than 0; got {value}")
    return float(value)


def solenoidal(
    u: Float[Tensor, "batch d *space t"],
) -> Float[Tensor, "batch d *space t"]:
    """Return u − ∇Δ⁻¹∇·u on a torus with axes of one length (Leray's projection); channels in the axes'
    order.

    The mode that a grid of even size cannot tell from its negative has no derivative.
    """
    dims = tuple(range(2, u.ndim - 1))
    with full_precision(u):
        c = torch.fft.fftn(u if u.dtype == torch.float64 else u.float(), dim=dims)
        axes = []
        for i in dims:
            n = u.shape[i]
            k = torch.arange(n, device=u.device, dtype=c.real.dtype)
            k = torch.where(2 * k < n, k, torch.where(2 * k > n, k - n, 0.0))
            axes.append(k.reshape(-1, *[1] * (u.ndim - 1 - i)))
        k = torch.stack(torch.broadcast_tensors(*axes))  # (d, *space, 1)
        square = k.square().sum(0)
        along = (k * c).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
        return torch.fft.ifftn(c - k * along, dim=dims).real
