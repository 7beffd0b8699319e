"""Grids that know the eigenbasis of their Laplacian.

An axis fixes where its nodes lie and which functions it expands a field in:

===========  ==========================================  =====================================
boundary     nodes of an axis with n points              orthonormal eigenfunctions of −d²/dx²
===========  ==========================================  =====================================
periodic     x_i = i L/n, the end point left out          1, cos(2πkx/L), sin(2πkx/L)
dirichlet    x_i = i L/(n−1), both ends included          sin(πkx/L), k = 1 … n−2
neumann      x_i = (i + ½) L/n, the cell centres          cos(πkx/L), k = 0 … n−1
===========  ==========================================  =====================================

Coefficients are real and scaled so that their squares sum to the L² integral of the field
(Parseval), whatever the boundary. Sobolev norms, Gaussian random fields, fast Poisson solves and
resampling are then one line each, for every grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

BOUNDARIES = ("periodic", "dirichlet", "neumann")


@dataclass(frozen=True)
class Axis:
    """One coordinate direction: ``size`` nodes on ``[origin, origin + length]``.

    >>> Axis("x", 4).points().tolist()
    [0.0, 0.25, 0.5, 0.75]
    >>> Axis("x", 5, boundary="dirichlet").points().tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> Axis("x", 4, boundary="neumann").points().tolist()
    [0.125, 0.375, 0.625, 0.875]

    Raises:
        ValueError: for an unknown boundary kind, a length that is not positive, or too few nodes.
    """

    name: str
    size: int
    length: float = 1.0
    origin: float = 0.0
    boundary: str = "periodic"

    def __post_init__(self) -> None:
        if self.boundary not in BOUNDARIES:
            raise ValueError(
                f"axis {self.name!r} has boundary={self.boundary!r}; it must be one of {', '.join(BOUNDARIES)}"
            )
        if not (self.length > 0 and math.isfinite(self.length) and math.isfinite(self.origin)):
            raise ValueError(
                f"axis {self.name!r} needs a finite origin and a positive length, got origin={self.origin}, "
                f"length={self.length}"
            )
        if isinstance(self.size, np.integer):
            object.__setattr__(self, "size", int(self.size))
        least = 3 if self.boundary == "dirichlet" else 1
        whole = isinstance(self.size, (int, torch.SymInt)) and not isinstance(self.size, bool)
        if not whole or self.size < least:
            raise ValueError(
                f"a {self.boundary} axis needs a whole number of at least {least} nodes, got size={self.size!r} "
                f"for axis {self.name!r}"
            )

    @property
    def spacing(self) -> float:
        """Distance between neighbouring nodes."""
        return self.length / (self.size - 1 if self.boundary == "dirichlet" else self.size)

    @property
    def mode_count(self) -> int:
        """How many eigenfunctions the axis resolves."""
        return self.size - 2 if self.boundary == "dirichlet" else self.size

    def points(self, device: torch.device | str = "cpu") -> Tensor:
        """Node coordinates, float64, shape ``(size,)``."""
        shift = 0.5 if self.boundary == "neumann" else 0.0
        index = torch.arange(self.size, dtype=torch.float64, device=device)
        return self.origin + self.spacing * (index + shift)

    def weights(self, device: torch.device | str = "cpu") -> Tensor:
        """Quadrature weights of the nodes (trapezoids or cells), float64, summing to ``length``."""
        weights = torch.full((self.size,), self.spacing, dtype=torch.float64, device=device)
        if self.boundary == "dirichlet":
            weights[0] = weights[-1] = self.spacing / 2
        return weights

    def wavenumbers(self, device: torch.device | str = "cpu") -> Tensor:
        """Angular wavenumber of each eigenfunction, float64, shape ``(mode_count,)``.

        On a periodic axis the cosines come first (k = 0 … n//2), then the sines (k = 1 …).
        """
        if self.boundary == "periodic":
            cosines = torch.arange(self.size // 2 + 1, dtype=torch.float64, device=device)
            whole = torch.cat([cosines, cosines[1 : (self.size + 1) // 2]])
            return 2 * math.pi / self.length * whole
        first = 1 if self.boundary == "dirichlet" else 0
        whole = torch.arange(first, first + self.mode_count, dtype=torch.float64, device=device)
        return math.pi / self.length * whole

    def basis(self, points: Tensor) -> Tensor:
        """The eigenfunctions at any ``points``, float64, shape ``(mode_count, len(points))``."""
        x = points.to(torch.float64) - self.origin
        phase = self.wavenumbers(x.device)[:, None] * x
        if self.boundary == "dirichlet":
            return math.sqrt(2 / self.length) * phase.sin()
        if self.boundary == "neumann":
            values = math.sqrt(2 / self.length) * phase.cos()
            values[0] = 1 / math.sqrt(self.length)
            return values
        cosines = self.size // 2 + 1
        values = torch.cat([phase[:cosines].cos(), phase[cosines:].sin()]) * math.sqrt(
            2 / self.length
        )
        values[0] = 1 / math.sqrt(self.length)
        if (
            self.size % 2 == 0
        ):  # the Nyquist cosine is normalised on the nodes, where its square is 1
            values[cosines - 1] /= math.sqrt(2)
        return values

    def to_modes(self, u: Tensor) -> Tensor:
        """Coefficients along the last axis: ``(..., size) -> (..., mode_count)``."""
        return _FORWARD[self.boundary](u) * math.sqrt(self.spacing)

    def from_modes(self, c: Tensor) -> Tensor:
        """Node values along the last axis: ``(..., mode_count) -> (..., size)``."""
        return _INVERSE[self.boundary](c) / math.sqrt(self.spacing)

    def _transplanted(self, c: Tensor, other: Axis) -> Tensor:
        """Coefficients on an axis of the same kind and another size: cut or padded along the last
        axis."""
        if self.boundary != "periodic":
            width = other.mode_count - self.mode_count
            return torch.nn.functional.pad(c, (0, width)) if width >= 0 else c[..., :width]
        cosines, sines = c.tensor_split([self.size // 2 + 1], dim=-1)
        if (
            self.size % 2 == 0 and other.size != self.size
        ):  # Nyquist: the same amplitude, another normalisation
            cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] / math.sqrt(2)], dim=-1)
        width = other.size // 2 + 1 - cosines.shape[-1]
        cosines = (
            torch.nn.functional.pad(cosines, (0, width)) if width >= 0 else cosines[..., :width]
        )
        if other.size % 2 == 0 and other.size < self.size:
            cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] * math.sqrt(2)], dim=-1)
        width = (other.size + 1) // 2 - 1 - sines.shape[-1]
        sines = torch.nn.functional.pad(sines, (0, width)) if width >= 0 else sines[..., :width]
        return torch.cat([cosines, sines], dim=-1)


def _fourier(u: Tensor) -> Tensor:
    """Orthonormal real Fourier transform: cosines, then sines."""
    n = u.shape[-1]
    v = torch.fft.rfft(u, norm="ortho") * math.sqrt(2)
    cosines = torch.cat([v.real[..., :1] / math.sqrt(2), v.real[..., 1:]], dim=-1)
    if n % 2 == 0:
        cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] / math.sqrt(2)], dim=-1)
    return torch.cat([cosines, -v.imag[..., 1 : (n + 1) // 2]], dim=-1)


def _inverse_fourier(c: Tensor) -> Tensor:
    n = c.shape[-1]
    real, imaginary = c.tensor_split([n // 2 + 1], dim=-1)
    scale = torch.full((n // 2 + 1,), 1 / math.sqrt(2), dtype=c.dtype, device=c.device)
    scale[0] = 1.0
    if n % 2 == 0:
        scale[-1] = 1.0
    missing = n // 2 - imaginary.shape[-1]  # the sine of the Nyquist mode vanishes on the nodes
    imaginary = torch.nn.functional.pad(-imaginary, (1, missing))
    return torch.fft.irfft(torch.complex(real * scale, imaginary * scale), n=n, norm="ortho")


def _inner_sine(u: Tensor) -> Tensor:
    """Orthonormal DST-I, its own inverse, by the real FFT of the odd extension."""
    n = u.shape[-1]
    zero = u.new_zeros((*u.shape[:-1], 1))
    odd = torch.cat([zero, u, zero, -u.flip(-1)], dim=-1)
    return torch.fft.rfft(odd).imag[..., 1 : n + 1] * (-math.sqrt(0.5 / (n + 1)))


def _sine(u: Tensor) -> Tensor:
    return _inner_sine(u[..., 1:-1])


def _inverse_sine(c: Tensor) -> Tensor:
    return torch.nn.functional.pad(_inner_sine(c), (1, 1))


def _cosine(u: Tensor) -> Tensor:
    """Orthonormal DCT-II by one real FFT of the same length (Makhoul 1980)."""
    n = u.shape[-1]
    w = torch.fft.rfft(torch.cat([u[..., ::2], u[..., 1::2].flip(-1)], dim=-1)) * _quarter_shift(
        n, u
    )
    c = torch.cat([w.real, -w.imag[..., 1 : (n + 1) // 2].flip(-1)], dim=-1) * math.sqrt(2 / n)
    return torch.cat([c[..., :1] / math.sqrt(2), c[..., 1:]], dim=-1)


def _inverse_cosine(c: Tensor) -> Tensor:
    n = c.shape[-1]
    c = torch.cat([c[..., :1] * math.sqrt(2), c[..., 1:]], dim=-1) * math.sqrt(n / 2)
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), c.flip(-1)[..., : n // 2]], dim=-1)
    w = torch.complex(c[..., : n // 2 + 1], -mirrored) * _quarter_shift(n, c).conj()
    v = torch.fft.irfft(w, n=n)
    half = (n + 1) // 2
    u = torch.empty_like(v)
    u[..., ::2], u[..., 1::2] = v[..., :half], v[..., half:].flip(-1)
    return u


def _quarter_shift(n: int, like: Tensor) -> Tensor:
    angle = torch.arange(n // 2 + 1, dtype=like.dtype, device=like.device) * (-math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


_FORWARD = {"periodic": _fourier, "dirichlet": _sine, "neumann": _cosine}
_INVERSE = {"periodic": _inverse_fourier, "dirichlet": _inverse_sine, "neumann": _inverse_cosine}


def _picked(axis: Axis, target: Axis) -> slice:
    """The slice of ``axis`` that holds the nodes of ``target``."""
    nodal = axis.boundary == "dirichlet"
    cells, wanted = axis.size - nodal, target.size - nodal
    stride, rest = divmod(cells, wanted)
    fits = rest == 0 and stride >= 1 and not (axis.boundary == "neumann" and stride % 2 == 0)
    if replace(target, size=axis.size) != axis or not fits:
        raise ValueError(
            f"the nodes of {target} are not among those of {axis}; a {axis.boundary} axis of {axis.size} nodes can be "
            f"subsampled to {', '.join(map(str, subsampled_sizes(axis)))}"
        )
    return slice(stride // 2 if axis.boundary == "neumann" else 0, None, stride)


def subsampled_sizes(axis: Axis) -> list[int]:
    """Every size to which ``axis`` can be subsampled, largest first.

    >>> subsampled_sizes(Axis("x", 85, boundary="dirichlet"))
    [85, 43, 29, 22, 15, 13, 8, 7, 5, 4, 3]
    """
    nodal = axis.boundary == "dirichlet"
    cells = axis.size - nodal
    step = 2 if axis.boundary == "neumann" else 1
    sizes = (cells // stride + nodal for stride in range(1, cells + 1, step) if cells % stride == 0)
    return [size for size in sizes if size >= (3 if nodal else 1)]
