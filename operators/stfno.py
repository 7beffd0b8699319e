"""The spatio-temporal Fourier neural operator: trajectory in, trajectory out, at any times."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.grids.checks import check_whole
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film, per_layer
from sobolev.operators.layers.fourier import Transforms
from sobolev.operators.layers.resampling import resampled
from sobolev.operators.layers.spectral_conv import SpectralConv
from sobolev.operators.layers.spectral_output import SpectralOutput


class SpatioTemporalFNO(Operator):
    """Spatio-temporal Fourier neural operator (Cao et al., ICLR 2025, arXiv:2405.17211), periodic in
    space.

    With times in units of the input frames' spacing, the last input frame at t = 0::

        v_0 = P u                                                       (x, t_in)
        v_1 = σ(M_1 K_1 v_0 + v_0(·, last) + E(τ))                      (x, τ),  τ_j = j horizon / latent_steps
        v_l = σ(M_l K_l v_{l−1} + W_l v_{l−1}),  l = 2 … depth
        r   = (u(·, last), S v_depth)                                   at τ_0 = 0, τ_1, …
        u(x, t) = r(x, 0) + Q[r](x, t),  t = step, 2 step, …, t_out step

    K are Fourier layers in space and time, M perceptrons with one hidden layer, P, W, S linear maps
    of the channels, Q is ``SpectralOutput``. ``latent(u)`` is r, ``output(r, size)`` the last line.
    Time is not periodic: in all transforms it is extended by zeros, by the fraction ``padding``. The
    input's frames, however many, are taken to fill one window and the latent ones another, as cells.

    Unlike the released code: output times are physical, so that finer or longer output is one
    function evaluated at more points (there the length of the output sets the period, so that times
    and amplitudes of t_out frames depend on t_out); the features E are functions of the latent time
    alone, so that the operator commutes with shifts in space as long as Q's bias is constant there;
    no group normalisation, which divides the amplitude out. Nothing is causal.

    Args:
        in_channels: channels of an input frame.
        out_channels: channels of an output frame.
        modes: Fourier modes per space axis and in time, which comes last. The first layer uses only as
            many in time as the input's t_in frames tell apart, t_in (1 + padding) / 2 rounded up.
        width: hidden channels.
        depth: Fourier layers.
        latent_steps: times at which the hidden layers work.
        horizon: the time that they span; ``latent_steps`` input spacings by default.
        step: spacing of the output frames, in input spacings.
        padding: fraction by which time is extended; 1 doubles it, as released. Of smooth functions
            of time, 5 modes represent 0.01 % then and 0.7 % with 0.25.
        hidden: hidden channels of M; 4 ``width`` by default.
        positions: E(τ), a linear map of s, e^{−s} sin π(k+1)s and e^{−s} cos π(k+1)s, s = τ /
            horizon, k alternately, ``width`` of them.
        residual: r(x, 0) is the last input frame, of the last ``out_channels`` channels (static
            inputs come first). Otherwise it is zero.
        solenoidal: remove the gradient part of the output, a velocity with one channel per space
            axis, in their order (Leray's projection), on a domain with axes of one length.
        bias: whether Q has one, a field in space and time.
        output_modes: the modes of Q; ``modes`` by default.

    Shape:
        ``(batch, in_channels, *space, t_in) -> (batch, out_channels, *space, t_out)``, one to three
        space axes; t_out is t_in unless ``size`` says otherwise.

    >>> operator = SpatioTemporalFNO(1, 1, modes=(4, 4, 3), width=8, latent_steps=4)
    >>> u = torch.randn(2, 1, 16, 16, 4)
    >>> slow, fast = operator(u, size=(16, 16, 4)), operator(u, size=(16, 16, 8), step=0.5)
    >>> torch.allclose(slow, fast[..., 1::2], atol=1e-5)
    True

    Raises:
        ValueError: for arguments that do not fit together.
    """

    axes = "zyxt"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int] = (12, 12, 5),
        width: int = 20,
        depth: int = 4,
        *,
        latent_steps: int = 10,
        horizon: float | None = None,
        step: float = 1.0,
        padding: float = 1.0,
        hidden: int | None = None,
        positions: bool = True,
        residual: bool = True,
        solenoidal: bool = False,
        bias: bool = True,
        output_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = list(modes)
        self.width = width
        self.depth = depth
        self.latent_steps = latent_steps
        self.padding = float(padding)
        self.horizon = float(latent_steps if horizon is None else horizon)
        self.hidden = 4 * width if hidden is None else hidden
        self.positions = positions
        self.residual = residual
        self.solenoidal = solenoidal
        self.bias = bias
        self.output_modes = self.modes if output_modes is None else list(output_modes)
        self._check_arguments()
        self.boundary: list[str] = ["periodic"] * (self.ndim - 1) + ["neumann"]
        self.lift = nn.Linear(in_channels, width)
        skips: list[nn.Module] = [LatestFrame(width, latent_steps, positions)]
        skips += [nn.Linear(width, width) for _ in range(depth - 1)]
        self.blocks = nn.ModuleList(self._block(skip) for skip in skips)
        self.reduce = nn.Linear(width, out_channels)
        self.output = self._output(self.output_modes, step, bias)

    @property
    def ndim(self) -> int:
        return len(self.modes)

    @property
    def film_channels(self) -> list[int]:
        return [self.width] * self.depth

    @property
    def step(self) -> float:
        """The spacing of the output frames, in input spacings; may be set."""
        return self.output.step

    @step.setter
    def step(self, value: float) -> None:
        self.output.step = value

    @property
    def exportable(self) -> bool:  # type: ignore[override]
        """True unless ``solenoidal``, which takes a complex transform."""
        return not self.solenoidal

    def check_grid(self, grid: AbstractGrid) -> None:
        super().check_grid(grid)
        lengths = [a.length for a in grid.axes[:-1]] if isinstance(grid, Grid) else []
        if self.solenoidal and len(set(lengths)) > 1:
            raise ValueError(f"a solenoidal output needs space axes of one length, got {lengths}")

    def forward(
        self,
        u: Float[Tensor, "batch in_channels *space t_in"],
        size: Sequence[int] | None = None,
        *,
        step: float | None = None,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels *size t_out"]:
        """Apply to trajectories; the last entry of ``size``, of the output, is t_out.

        Input is first resampled to the space of ``size`` by its Fourier series. ``step`` stands in
        for the constructor's, ``films`` modulate the layers (``latent``).

        Raises:
            ValueError: for a step that is not positive, or a last time beyond ``output.period``.
        """
        self.check(u)
        size = tuple(u.shape[2:]) if size is None else tuple(size)
        if len(size) != self.ndim:
            raise ValueError(f"size needs {self.ndim} entries, the last for time; got {size}")
        u = resampled(u.movedim(-1, 1), size[:-1], self.boundary[:-1]).movedim(1, -1)
        return self.output(self.latent(u, films), size, step=step)

    def latent(
        self,
        u: Float[Tensor, "batch in_channels *space t_in"],
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels *space latent"]:
        """Return r, at the 1 + ``latent_steps`` latent times; ``films`` modulate M K v + W v."""
        self.check(u)
        v = self.lift(u.movedim(1, -1))
        *space, frames = v.shape[1:-1]
        latent = (*space, self.latent_steps)
        first, *blocks = (cast(SpaceTimeBlock, block) for block in self.blocks)
        early, *later = per_layer(films, self.depth)
        transforms = first.kernel.modes.between((*space, frames), latent, v)
        v = self.run(first, v, transforms, early)
        transforms = first.kernel.modes.between(latent, latent, v)
        for block, film in zip(blocks, later, strict=True):
            v = self.run(block, v, transforms, film)
        r = self.reduce(v).movedim(-1, 1)
        last = u[:, self.in_channels - self.out_channels :, ..., -1:].to(r.dtype)
        return torch.cat([last if self.residual else torch.zeros_like(r[..., :1]), r], dim=-1)

    def enlarged(self, modes: Sequence[int], *, bias: bool | None = None) -> SpatioTemporalFNO:
        """Return a copy whose ``output`` keeps more modes, new weights being zero: the same map, with
        more to fine-tune.

        Args:
            modes: the new ``output_modes``, none smaller than the old.
            bias: whether the new output has a bias (a new one is zero); by default, as now.

        Raises:
            ValueError: for fewer modes on an axis, or a bias taken away.
        """
        bias = self.bias if bias is None else bias
        if len(modes) != self.ndim or any(
            m < n for m, n in zip(modes, self.output_modes, strict=False)
        ):
            raise ValueError(f"the output has modes {self.output_modes}; {tuple(modes)} is no more")
        if self.bias and not bias:
            raise ValueError("the output has a bias, which an enlarged one keeps")
        larger = copy.deepcopy(self)
        larger.output_modes = list(modes)
        larger.bias = bias
        larger._check_arguments()
        larger.output = self._output(modes, self.step, bias).to(self.output.weight)
        larger.output.train(self.training)
        larger.output.embed(self.output)
        return larger

    def _block(self, skip: nn.Module) -> SpaceTimeBlock:
        kernel = SpectralConv(
            self.width, self.width, self.modes, boundary=self.boundary, padding=self.padding
        )
        return SpaceTimeBlock(kernel, self.width, self.hidden, skip)

    def _output(self, modes: Sequence[int], step: float, bias: bool) -> SpectralOutput:
        return SpectralOutput(
            self.out_channels, modes, latent_steps=self.latent_steps, horizon=self.horizon,
            step=step, padding=self.padding, bias=bias, solenoidal=self.solenoidal,
        )  # fmt: skip

    def _check_arguments(self) -> None:
        check_whole(
            "SpatioTemporalFNO", in_channels=self.in_channels, out_channels=self.out_channels,
            modes=self.modes, width=self.width, depth=self.depth, latent_steps=self.latent_steps,
            hidden=self.hidden, output_modes=self.output_modes,
        )  # fmt: skip
        if not 2 <= len(self.modes) <= 4 or len(self.output_modes) != len(self.modes):
            raise ValueError(
                "modes and output_modes need one entry per space axis, one to three, and one for time; got "
                f"{self.modes} and {self.output_modes}"
            )
        if not 0 <= self.padding < math.inf:
            raise ValueError(f"padding is a fraction of the time, at least 0; got {self.padding}")
        for owner, frames, modes in (
            ("hidden layers have", self.latent_steps, self.modes),
            ("output has", self.latent_steps + 1, self.output_modes),  # it sees τ_0 too
        ):
            resolved = math.ceil(frames * (1 + self.padding) / 2)
            if modes[-1] > resolved:
                raise ValueError(
                    f"latent_steps={self.latent_steps} tell apart {resolved} modes in time, the {owner} "
                    f"{modes[-1]}; use more latent steps or fewer modes"
                )
        if self.residual and self.in_channels < self.out_channels:
            raise ValueError(
                f"out_channels={self.out_channels} of the last input frame are carried over, it has only "
                f"{self.in_channels}; residual=False carries none"
            )
        if self.solenoidal and (self.ndim < 3 or self.out_channels != self.ndim - 1):
            raise ValueError(
                f"a solenoidal output is a velocity, one channel for each of at least two space axes; got "
                f"out_channels={self.out_channels} and {self.ndim - 1} space axes"
            )


class SpaceTimeBlock(nn.Module):
    """v ↦ σ(M K v + S v) on channels-last fields: K a spectral convolution, M a perceptron."""

    def __init__(self, kernel: SpectralConv, width: int, hidden: int, skip: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel
        self.skip = skip
        self.mix = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        v: Float[Tensor, "batch *space t_in width"],
        transforms: Transforms,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *space t width"]:
        w = self.mix(self.kernel(v, transforms)) + self.skip(v)
        return F.gelu(w if film is None else film(w))


class LatestFrame(nn.Module):
    """v(x, t) ↦ v(x, last) + E(τ): what the input left off with, and how far ahead τ is."""

    def __init__(self, width: int, steps: int, positions: bool) -> None:
        super().__init__()
        self.width = width
        self.steps = steps
        self.features = nn.Linear(width + 1, width, bias=False) if positions else None

    def forward(
        self, v: Float[Tensor, "batch *space t width"]
    ) -> Float[Tensor, "batch *space tau width"]:
        last = v[..., -1:, :]
        if self.features is None:
            return last
        s = torch.arange(1, self.steps + 1, device=v.device, dtype=torch.float64) / self.steps
        k = torch.arange(self.width, device=v.device, dtype=torch.float64)
        # sines and cosines in turn: a cosine is a sine a quarter of a period ahead
        waves = torch.sin(math.pi * ((k + 1) * s[:, None] + (k % 2) / 2))
        features = torch.cat([s[:, None], (-s[:, None]).exp() * waves], dim=1)
        return last + self.features(features.to(v.dtype))
