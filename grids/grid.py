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

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

BOUNDARIES = ("periodic", "dirichlet", "neumann")
_NAMES = ("z", "y", "x")


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


class AbstractGrid(ABC):
    """Nodes with a quadrature and the orthonormal eigenbasis of their Laplacian.

    What is written against this face – norms, random fields, spectra, data sets – works on every
    grid.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Nodes per axis."""

    @property
    @abstractmethod
    def mode_shape(self) -> tuple[int, ...]:
        """Shape of a field's coefficients."""

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of axes of a field."""

    @property
    @abstractmethod
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""

    @abstractmethod
    def points(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """One float64 coordinate vector per axis."""

    @abstractmethod
    def quadrature(self, device: torch.device | str = "cpu") -> Tensor:
        """The part of the domain that each node stands for, float64, shape ``shape``."""

    @abstractmethod
    def eigenvalues(self, device: torch.device | str = "cpu") -> Tensor:
        """Eigenvalues of −Δ for each mode, float64, shape ``mode_shape``."""

    @abstractmethod
    def shells(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Wavenumbers of the shells of modes, and the shell of each mode (in flat order)."""

    @abstractmethod
    def to_modes(self, u: Tensor) -> Tensor:
        """Coefficients of ``u``: ``(..., *shape) -> (..., *mode_shape)``."""

    @abstractmethod
    def from_modes(self, c: Tensor) -> Tensor:
        """The field with these coefficients: ``(..., *mode_shape) -> (..., *shape)``."""

    @abstractmethod
    def resized(self, *sizes: int) -> AbstractGrid:
        """The same domain with other numbers of nodes."""

    @abstractmethod
    def resample(self, u: Tensor, other: AbstractGrid) -> Tensor:
        """The expansion of ``u`` on another grid of the same domain."""

    @abstractmethod
    def subsample(self, u: Tensor, coarser: AbstractGrid) -> Tensor:
        """The values of ``u`` at the nodes of ``coarser``, all of which are nodes here."""

    @abstractmethod
    def can_subsample(self, coarser: AbstractGrid) -> bool:
        """Whether every node of ``coarser`` is a node of this grid."""

    @abstractmethod
    def without_border(self, u: Tensor, cells: AbstractGrid | None = None) -> Tensor:
        """``u`` with zeros where the domain prescribes them."""

    @abstractmethod
    def check(self, u: Tensor, *, modes: bool = False) -> None:
        """Refuse a tensor that is no real field on this grid."""


@dataclass(frozen=True, init=False)
class Grid(AbstractGrid):
    """A tensor product of axes; the last axis is x and varies fastest.

    >>> grid = Grid.periodic(8, 16, length=2.0)
    >>> grid.shape, [axis.name for axis in grid.axes]
    ((8, 16), ['y', 'x'])
    >>> Grid.dirichlet(5).eigenvalues().div(math.pi**2).round(decimals=6).tolist()
    [1.0, 4.0, 9.0]

    Fields are plain tensors ``(..., *shape)``. Every method is differentiable, keeps dtype and
    device, and takes any number of leading batch axes.
    """

    axes: tuple[Axis, ...]

    def __init__(self, *axes: Axis) -> None:
        if not axes or not all(isinstance(axis, Axis) for axis in axes):
            raise ValueError(f"a Grid is made of one or more Axis objects, got {axes!r}")
        names = [axis.name for axis in axes]
        if len(set(names)) != len(names):
            raise ValueError(f"the axes of a grid need different names, got {names}")
        object.__setattr__(self, "axes", axes)

    @classmethod
    def _of_kind(
        cls,
        boundary: str,
        sizes: Sequence[int],
        length: float | Sequence[float],
        origin: float | Sequence[float],
    ) -> Grid:
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"a grid has one to three axes, got sizes {tuple(sizes)}")
        lengths, origins = (
            _per_axis("length", length, len(sizes)),
            _per_axis("origin", origin, len(sizes)),
        )
        return cls(
            *map(Axis, _NAMES[-len(sizes) :], sizes, lengths, origins, [boundary] * len(sizes))
        )

    @classmethod
    def periodic(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """A torus of one to three axes (z, y, x)."""
        return cls._of_kind("periodic", sizes, length, origin)

    @classmethod
    def dirichlet(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """A box with nodes on its border, where fields vanish."""
        return cls._of_kind("dirichlet", sizes, length, origin)

    @classmethod
    def neumann(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """A box of cells; fields live on the cell centres and have no flux through the border."""
        return cls._of_kind("neumann", sizes, length, origin)

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def mode_shape(self) -> tuple[int, ...]:
        """Modes per axis."""
        return tuple(axis.mode_count for axis in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.axes)

    def points(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """One float64 coordinate vector per axis."""
        return tuple(axis.points(device) for axis in self.axes)

    def quadrature(self, device: torch.device | str = "cpu") -> Tensor:
        """Weight of each node, float64, shape ``shape``: trapezoids or cells, summing to the volume."""
        weights = (axis.weights(device) for axis in self.axes)
        return functools.reduce(lambda a, b: a[..., None] * b, weights)

    def eigenvalues(self, device: torch.device | str = "cpu") -> Tensor:
        """Eigenvalues λ of −Δ for each mode, float64, shape ``mode_shape``."""
        squares = (axis.wavenumbers(device).square() for axis in self.axes)
        return functools.reduce(lambda a, b: a[..., None] + b, squares)

    def shells(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Shells as wide as the smallest wavenumber of the grid: the wavenumber at the centre of
        each, and the number of the shell that each mode (in flat order) belongs to."""
        positive = (k for axis in self.axes for k in axis.wavenumbers().tolist() if k > 0)
        width = min(positive, default=1.0)  # without one there is the mean alone
        shell = (self.eigenvalues(device).sqrt() / width).round().long().flatten()
        count = int(shell.max()) + 1
        return width * torch.arange(count, dtype=torch.float64, device=device), shell

    def to_modes(self, u: Tensor) -> Tensor:
        """Coefficients of ``u`` in the orthonormal eigenbasis: ``(..., *shape) -> (...,
        *mode_shape)``.

        Border values of a Dirichlet axis do not enter: the basis vanishes there.
        """
        self.check(u)
        for i, axis in enumerate(self.axes):
            u = axis.to_modes(u.movedim(i - self.ndim, -1)).movedim(-1, i - self.ndim)
        return u

    def from_modes(self, c: Tensor) -> Tensor:
        """The field with these coefficients: ``(..., *mode_shape) -> (..., *shape)``."""
        self.check(c, modes=True)
        for i, axis in enumerate(self.axes):
            c = axis.from_modes(c.movedim(i - self.ndim, -1)).movedim(-1, i - self.ndim)
        return c

    def resized(self, *sizes: int) -> Grid:
        """The same domain with other numbers of nodes."""
        if len(sizes) != self.ndim:
            raise ValueError(f"this grid has {self.ndim} axes, got sizes {sizes}")
        return Grid(
            *(replace(axis, size=size) for axis, size in zip(self.axes, sizes, strict=True))
        )

    def resample(self, u: Tensor, other: AbstractGrid) -> Tensor:
        """Evaluate the eigenfunction expansion of ``u`` on another grid of the same domain.

        Between axes of one boundary kind modes are cut or padded with zeros (FFT); between kinds –
        cell centres to nodes, say – the modes are summed at the other's points. Exact for every
        field that both grids resolve.
        """
        if not isinstance(other, Grid) or other.ndim != self.ndim:
            raise ValueError(f"cannot resample from {self} to {other}")
        self.check(u)
        for i, (axis, target) in enumerate(zip(self.axes, other.axes, strict=True)):
            if not (_same(axis.length, target.length) and _same(axis.origin, target.origin)):
                raise ValueError(
                    f"axis {axis.name!r} spans [{axis.origin}, {axis.origin + axis.length}] here but "
                    f"[{target.origin}, {target.origin + target.length}] on the other grid; both must cover one domain"
                )
            if axis == target:
                continue
            c = axis.to_modes(u.movedim(i - self.ndim, -1))
            if axis.boundary == target.boundary:
                values = target.from_modes(axis._transplanted(c, target))
            else:
                kept = min(axis.mode_count, target.size)
                values = c[..., :kept] @ axis.basis(target.points(u.device))[:kept].to(u.dtype)
            u = values.movedim(-1, i - self.ndim)
        return u

    def subsample(self, u: Tensor, coarser: AbstractGrid) -> Tensor:
        """Pick the values of ``u`` at the nodes of ``coarser``, every one of which must be a node
        here."""
        self.check(u)
        for i, (axis, target) in enumerate(zip(self.axes, self._like(coarser).axes, strict=True)):
            u = u.movedim(i - self.ndim, -1)[..., _picked(axis, target)].movedim(-1, i - self.ndim)
        return u

    def can_subsample(self, coarser: AbstractGrid) -> bool:
        """Whether every node of ``coarser`` is a node of this grid."""
        try:
            for axis, target in zip(self.axes, self._like(coarser).axes, strict=True):
                _picked(axis, target)
        except ValueError:
            return False
        return True

    def _like(self, other: AbstractGrid) -> Grid:
        if not isinstance(other, Grid) or other.ndim != self.ndim:
            raise ValueError(f"the nodes of {other} are not among those of {self}")
        return other

    def without_border(self, u: Tensor, cells: AbstractGrid | None = None) -> Tensor:
        """``u`` with zeros on the border of its Dirichlet axes.

        With ``cells``, a grid of the same axes, what is taken away falls linearly to zero over one of
        its cells: on that grid nothing changes, on finer ones there is no jump.
        """
        self.check(u)
        cells = self if cells is None else self._like(cells)
        for i, (axis, coarse) in enumerate(zip(self.axes, cells.axes, strict=True)):
            if axis.boundary == "dirichlet":
                dim, last = i - self.ndim, axis.size - 1
                steps = torch.arange(axis.size, dtype=u.dtype, device=u.device)
                weight = (1 - steps * ((coarse.size - 1) / last)).clamp(min=0)
                weight = weight.reshape(-1, *[1] * (-1 - dim))
                u = u - weight * u.narrow(dim, 0, 1) - weight.flip(0) * u.narrow(dim, last, 1)
        return u

    def check(self, u: Tensor, *, modes: bool = False) -> None:
        """Refuse a tensor that is no real field on this grid.

        Raises:
            ValueError: for no tensor, a wrong trailing shape, or a dtype other than float32 and float64.
        """
        if not isinstance(u, Tensor):
            raise ValueError(
                f"expected a torch tensor, got {type(u).__name__}; torch.from_numpy makes one"
            )
        expected = self.mode_shape if modes else self.shape
        if tuple(u.shape[max(u.ndim - self.ndim, 0) :]) != expected:
            what = "mode coefficients" if modes else "a field"
            raise ValueError(
                f"expected {what} of shape (..., {', '.join(map(str, expected))}), got {tuple(u.shape)}"
            )
        if u.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected a float32 or float64 tensor, got {u.dtype}")


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


def _per_axis(what: str, value: float | Sequence[float], count: int) -> list[float]:
    if isinstance(value, (int, float)):
        return [float(value)] * count
    if len(value) != count:
        raise ValueError(f"{what} needs one value or {count}, got {value!r}")
    return [float(v) for v in value]


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
