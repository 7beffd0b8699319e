"""One coordinate direction, and the eigenfunctions of −d²/dx² along it.

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
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn.functional import pad

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
    units: str = field(default="1", compare=False)
    """Of the coordinate, as its owner calls them; no number depends on them."""

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
        for name in ("size", "length", "origin"):
            if isinstance(value := getattr(self, name), np.generic):
                object.__setattr__(self, name, value.item())
        least = 3 if self.boundary == "dirichlet" else 1
        # sizes are symbols while torch.export traces
        whole = isinstance(self.size, (int, torch.SymInt)) and not isinstance(self.size, bool)
        if not whole or self.size < least:
            raise ValueError(
                f"a {self.boundary} axis needs a whole number of at least {least} nodes, got size={self.size!r} "
                f"for axis {self.name!r}"
            )

    @property
    def spacing(self) -> float:
        """The distance between neighbouring nodes."""
        return self.length / (self.size - 1 if self.boundary == "dirichlet" else self.size)

    @property
    def mode_count(self) -> int:
        """The number of eigenfunctions that the axis resolves."""
        return self.size - 2 if self.boundary == "dirichlet" else self.size

    def points(self, device: torch.device | str = "cpu") -> Float[Tensor, " size"]:
        """Return the coordinates of the nodes, in float64."""
        shift = 0.5 if self.boundary == "neumann" else 0.0
        index = torch.arange(self.size, dtype=torch.float64, device=device)
        return self.origin + self.spacing * (index + shift)

    def weights(self, device: torch.device | str = "cpu") -> Float[Tensor, " size"]:
        """Return the quadrature weights of the nodes (trapezoids or cells), which sum to ``length``, in float64."""
        weights = torch.full((self.size,), self.spacing, dtype=torch.float64, device=device)
        if self.boundary == "dirichlet":
            weights[0] = weights[-1] = self.spacing / 2
        return weights

    def wavenumbers(self, device: torch.device | str = "cpu") -> Float[Tensor, " mode"]:
        """Return the angular wavenumber of each eigenfunction, in float64.

        On a periodic axis the cosines come first (k = 0 … n//2), then the sines (k = 1 …).
        """
        if self.boundary == "periodic":
            cosines = torch.arange(self.size // 2 + 1, dtype=torch.float64, device=device)
            whole = torch.cat([cosines, cosines[1 : (self.size + 1) // 2]])
            return 2 * math.pi / self.length * whole
        first = 1 if self.boundary == "dirichlet" else 0
        whole = torch.arange(first, first + self.mode_count, dtype=torch.float64, device=device)
        return math.pi / self.length * whole

    def basis(self, points: Float[Tensor, " point"]) -> Float[Tensor, "mode point"]:
        """Return the eigenfunctions at any ``points``, in float64."""
        x = points.to(torch.float64) - self.origin
        phase = self.wavenumbers(x.device)[:, None] * x
        if self.boundary == "dirichlet":
            return math.sqrt(2 / self.length) * phase.sin()
        if self.boundary == "neumann":
            values = math.sqrt(2 / self.length) * phase.cos()
            values[0] = 1 / math.sqrt(self.length)
            return values
        cosines = self.size // 2 + 1
        values = torch.cat([phase[:cosines].cos(), phase[cosines:].sin()])
        values = values * math.sqrt(2 / self.length)
        values[0] = 1 / math.sqrt(self.length)
        if self.size % 2 == 0:
            # the Nyquist cosine is normalised on the nodes, where its square is 1
            values[cosines - 1] /= math.sqrt(2)
        return values

    def to_modes(self, u: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch mode"]:
        """Return the coefficients along the last axis."""
        return _TO_MODES[self.boundary](u) * math.sqrt(self.spacing)

    def from_modes(self, c: Float[Tensor, "*batch mode"]) -> Float[Tensor, "*batch size"]:
        """Return the values at the nodes along the last axis."""
        return _FROM_MODES[self.boundary](c) / math.sqrt(self.spacing)

    def carried_over(
        self, c: Float[Tensor, "*batch mode"], other: Axis
    ) -> Float[Tensor, "*batch other_mode"]:
        """Return the coefficients on an axis of the same kind and another size: ``c`` cut or padded along
        the last axis."""
        if self.boundary != "periodic":
            return _cut_or_padded(c, other.mode_count)
        cosines, sines = c.tensor_split([self.size // 2 + 1], dim=-1)
        # the Nyquist cosine keeps its amplitude and changes its normalisation
        if self.size % 2 == 0 and other.size != self.size:
            cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] / math.sqrt(2)], dim=-1)
        cosines = _cut_or_padded(cosines, other.size // 2 + 1)
        if other.size % 2 == 0 and other.size < self.size:
            cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] * math.sqrt(2)], dim=-1)
        sines = _cut_or_padded(sines, (other.size + 1) // 2 - 1)
        return torch.cat([cosines, sines], dim=-1)


def slice_of_nodes(axis: Axis, target: Axis) -> slice:
    """Return the slice of ``axis`` that holds the nodes of ``target``.

    >>> slice_of_nodes(Axis("x", 8), Axis("x", 4))
    slice(0, None, 2)

    Raises:
        ValueError: if some of them are no nodes of ``axis``, saying which sizes are possible.
    """
    nodal = axis.boundary == "dirichlet"
    stride, rest = divmod(axis.size - nodal, target.size - nodal)
    fits = rest == 0 and stride >= 1 and not (axis.boundary == "neumann" and stride % 2 == 0)
    if replace(target, size=axis.size) != axis or not fits:
        raise ValueError(
            f"the nodes of {target} are not among those of {axis}; a {axis.boundary} axis of {axis.size} nodes can be "
            f"subsampled to {', '.join(map(str, subsampled_sizes(axis)))}"
        )
    return slice(stride // 2 if axis.boundary == "neumann" else 0, None, stride)


def subsampled_sizes(axis: Axis) -> list[int]:
    """Return every size to which ``axis`` can be subsampled, largest first.

    >>> subsampled_sizes(Axis("x", 85, boundary="dirichlet"))
    [85, 43, 29, 22, 15, 13, 8, 7, 5, 4, 3]
    """
    nodal = axis.boundary == "dirichlet"
    cells = axis.size - nodal
    step = 2 if axis.boundary == "neumann" else 1
    sizes = (cells // stride + nodal for stride in range(1, cells + 1, step) if cells % stride == 0)
    return [size for size in sizes if size >= (3 if nodal else 1)]


def _cut_or_padded(c: Float[Tensor, "*batch n"], count: int) -> Float[Tensor, "*batch m"]:
    width = count - c.shape[-1]
    return pad(c, (0, width)) if width >= 0 else c[..., :width]


def _fourier(u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return the orthonormal real Fourier transform: cosines, then sines."""
    n = u.shape[-1]
    v = torch.fft.rfft(u, norm="ortho") * math.sqrt(2)
    cosines = torch.cat([v.real[..., :1] / math.sqrt(2), v.real[..., 1:]], dim=-1)
    if n % 2 == 0:
        cosines = torch.cat([cosines[..., :-1], cosines[..., -1:] / math.sqrt(2)], dim=-1)
    return torch.cat([cosines, -v.imag[..., 1 : (n + 1) // 2]], dim=-1)


def _inverse_fourier(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    n = c.shape[-1]
    real, imaginary = c.tensor_split([n // 2 + 1], dim=-1)
    scale = torch.full((n // 2 + 1,), 1 / math.sqrt(2), dtype=c.dtype, device=c.device)
    scale[0] = 1.0
    if n % 2 == 0:
        scale[-1] = 1.0
    missing = n // 2 - imaginary.shape[-1]  # the sine of the Nyquist mode vanishes on the nodes
    imaginary = pad(-imaginary, (1, missing))
    return torch.fft.irfft(torch.complex(real * scale, imaginary * scale), n=n, norm="ortho")


def _sine(u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n-2"]:
    return _inner_sine(u[..., 1:-1])


def _inverse_sine(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n+2"]:
    return pad(_inner_sine(c), (1, 1))


def _inner_sine(u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return the orthonormal DST-I, its own inverse, by the real FFT of the odd extension."""
    n = u.shape[-1]
    zero = u.new_zeros((*u.shape[:-1], 1))
    odd = torch.cat([zero, u, zero, -u.flip(-1)], dim=-1)
    return torch.fft.rfft(odd).imag[..., 1 : n + 1] * (-math.sqrt(0.5 / (n + 1)))


def _cosine(u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return the orthonormal DCT-II by one real FFT of the same length (Makhoul 1980)."""
    n = u.shape[-1]
    even_then_odd = torch.cat([u[..., ::2], u[..., 1::2].flip(-1)], dim=-1)
    w = torch.fft.rfft(even_then_odd) * _quarter_shift(n, u)
    c = torch.cat([w.real, -w.imag[..., 1 : (n + 1) // 2].flip(-1)], dim=-1) * math.sqrt(2 / n)
    return torch.cat([c[..., :1] / math.sqrt(2), c[..., 1:]], dim=-1)


def _inverse_cosine(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    n = c.shape[-1]
    c = torch.cat([c[..., :1] * math.sqrt(2), c[..., 1:]], dim=-1) * math.sqrt(n / 2)
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), c.flip(-1)[..., : n // 2]], dim=-1)
    w = torch.complex(c[..., : n // 2 + 1], -mirrored) * _quarter_shift(n, c).conj()
    even_then_odd = torch.fft.irfft(w, n=n)
    half = (n + 1) // 2
    u = torch.empty_like(even_then_odd)
    u[..., ::2] = even_then_odd[..., :half]
    u[..., 1::2] = even_then_odd[..., half:].flip(-1)
    return u


def _quarter_shift(n: int, like: Float[Tensor, " ..."]) -> Complex[Tensor, " half"]:
    """Return e^{−iπk/2n}, which moves a field by a quarter of a node, for k = 0 … n//2."""
    angle = torch.arange(n // 2 + 1, dtype=like.dtype, device=like.device) * (-math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


_TO_MODES = {"periodic": _fourier, "dirichlet": _sine, "neumann": _cosine}
_FROM_MODES = {"periodic": _inverse_fourier, "dirichlet": _inverse_sine, "neumann": _inverse_cosine}
