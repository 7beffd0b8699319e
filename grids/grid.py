"""Tensor products of axes, and what every grid can do."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real, Shaped
from torch import Tensor

from sobolev.grids.axis import Axis, slice_of_nodes
from sobolev.grids.checks import plain

_NAMES = ("z", "y", "x")


class AbstractGrid(ABC):
    """Nodes with a quadrature and the orthonormal eigenbasis of their Laplacian.

    What is written against this face – norms, random fields, spectra, data sets – works on every
    grid.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The number of nodes along each axis."""

    @property
    @abstractmethod
    def mode_shape(self) -> tuple[int, ...]:
        """The shape of a field's coefficients."""

    @property
    @abstractmethod
    def ndim(self) -> int:
        """The number of axes of a field."""

    @property
    @abstractmethod
    def dims(self) -> tuple[str, ...]:
        """The names of the axes."""

    @abstractmethod
    def points(self, device: torch.device | str = "cpu") -> tuple[Float[Tensor, " _"], ...]:
        """Return the coordinates along each axis, in float64."""

    @abstractmethod
    def quadrature(self, device: torch.device | str = "cpu") -> Float[Tensor, "*space"]:
        """Return the part of the domain that each node stands for, in float64."""

    @abstractmethod
    def eigenvalues(self, device: torch.device | str = "cpu") -> Float[Tensor, "*modes"]:
        """Return the eigenvalue of −Δ for each mode, in float64."""

    @abstractmethod
    def shells(
        self, device: torch.device | str = "cpu"
    ) -> tuple[Float[Tensor, " shell"], Int[Tensor, " flat_mode"]]:
        """Return the wavenumbers of the shells of modes, and the shell of each mode (in flat order)."""

    @abstractmethod
    def to_modes(self, u: Real[Tensor, "*batch_and_space"]) -> Float[Tensor, "*batch_and_modes"]:
        """Return the coefficients of ``u``: ``(..., *shape) -> (..., *mode_shape)``."""

    @abstractmethod
    def from_modes(self, c: Float[Tensor, "*batch_and_modes"]) -> Float[Tensor, "*batch_and_space"]:
        """Return the field with these coefficients: ``(..., *mode_shape) -> (..., *shape)``."""

    @abstractmethod
    def resized(self, *sizes: int) -> AbstractGrid:
        """Return the same domain with other numbers of nodes."""

    @abstractmethod
    def resample(
        self, u: Float[Tensor, "*batch_and_space"], other: AbstractGrid
    ) -> Float[Tensor, "*batch_and_other_space"]:
        """Return the expansion of ``u`` on another grid of the same domain."""

    @abstractmethod
    def subsample(
        self, u: Float[Tensor, "*batch_and_space"], coarser: AbstractGrid
    ) -> Float[Tensor, "*batch_and_other_space"]:
        """Return the values of ``u`` at the nodes of ``coarser``, all of which are nodes here."""

    @abstractmethod
    def can_subsample(self, coarser: AbstractGrid) -> bool:
        """Return true if every node of ``coarser`` is a node of this grid."""

    @abstractmethod
    def without_border(
        self, u: Float[Tensor, "*batch_and_space"], cells: AbstractGrid | None = None
    ) -> Float[Tensor, "*batch_and_space"]:
        """Return ``u`` with zeros where the domain prescribes them."""

    def check(self, u: Shaped[Tensor, " ..."], *, modes: bool = False) -> None:
        """Refuse a tensor that is no real field on this grid.

        Raises:
            ValueError: for no tensor, a wrong trailing shape, or a dtype other than float32 and float64.
        """
        if not isinstance(u, Tensor):
            raise ValueError(
                f"expected a torch tensor, got {type(u).__name__}; torch.from_numpy makes one"
            )
        expected = self.mode_shape if modes else self.shape
        if tuple(u.shape[max(u.ndim - len(expected), 0) :]) != expected:
            what = "mode coefficients" if modes else "a field"
            raise ValueError(
                f"expected {what} of shape (..., {', '.join(map(str, expected))}), got {tuple(u.shape)}"
            )
        if u.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected a float32 or float64 tensor, got {u.dtype}")


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
        lengths = _one_for_each_axis("length", length, len(sizes))
        origins = _one_for_each_axis("origin", origin, len(sizes))
        names = _NAMES[-len(sizes) :]
        return cls(*map(Axis, names, sizes, lengths, origins, [boundary] * len(sizes)))

    @classmethod
    def periodic(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """Return a torus of one to three axes (z, y, x)."""
        return cls._of_kind("periodic", sizes, length, origin)

    @classmethod
    def dirichlet(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """Return a box with nodes on its border, where fields vanish."""
        return cls._of_kind("dirichlet", sizes, length, origin)

    @classmethod
    def neumann(
        cls,
        *sizes: int,
        length: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
    ) -> Grid:
        """Return a box of cells; fields live on their centres and have no flux through the border."""
        return cls._of_kind("neumann", sizes, length, origin)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of nodes along each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def mode_shape(self) -> tuple[int, ...]:
        """The number of modes along each axis."""
        return tuple(axis.mode_count for axis in self.axes)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.axes)

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(axis.name for axis in self.axes)

    def points(self, device: torch.device | str = "cpu") -> tuple[Float[Tensor, " _"], ...]:
        """Return the coordinates along each axis, in float64."""
        return tuple(axis.points(device) for axis in self.axes)

    def quadrature(self, device: torch.device | str = "cpu") -> Float[Tensor, "*space"]:
        """Return the weight of each node (trapezoids or cells), in float64; they sum to the volume."""
        weights = (axis.weights(device) for axis in self.axes)
        return functools.reduce(lambda a, b: a[..., None] * b, weights)

    def eigenvalues(self, device: torch.device | str = "cpu") -> Float[Tensor, "*modes"]:
        """Return the eigenvalue λ of −Δ for each mode, in float64."""
        squares = (axis.wavenumbers(device).square() for axis in self.axes)
        return functools.reduce(lambda a, b: a[..., None] + b, squares)

    def shells(
        self, device: torch.device | str = "cpu"
    ) -> tuple[Float[Tensor, " shell"], Int[Tensor, " flat_mode"]]:
        """Return the wavenumber at the centre of each shell, and the shell that each mode (in flat order)
        belongs to. Shells are as wide as the smallest wavenumber of the grid."""
        positive = (k for axis in self.axes for k in axis.wavenumbers().tolist() if k > 0)
        width = min(positive, default=1.0)  # without one there is the mean alone
        shell = (self.eigenvalues(device).sqrt() / width).round().long().flatten()
        count = int(shell.max()) + 1
        return width * torch.arange(count, dtype=torch.float64, device=device), shell

    def to_modes(self, u: Real[Tensor, "*batch_and_space"]) -> Float[Tensor, "*batch_and_modes"]:
        """Return the coefficients of ``u`` in the orthonormal eigenbasis: ``(..., *shape) -> (...,
        *mode_shape)``.

        Border values of a Dirichlet axis do not enter: the basis vanishes there.
        """
        self.check(u)
        for i, axis in enumerate(self.axes):
            u = axis.to_modes(u.movedim(i - self.ndim, -1)).movedim(-1, i - self.ndim)
        return u

    def from_modes(self, c: Float[Tensor, "*batch_and_modes"]) -> Float[Tensor, "*batch_and_space"]:
        """Return the field with these coefficients: ``(..., *mode_shape) -> (..., *shape)``."""
        self.check(c, modes=True)
        for i, axis in enumerate(self.axes):
            c = axis.from_modes(c.movedim(i - self.ndim, -1)).movedim(-1, i - self.ndim)
        return c

    def resized(self, *sizes: int) -> Grid:
        """Return the same domain with other numbers of nodes."""
        if len(sizes) != self.ndim:
            raise ValueError(f"this grid has {self.ndim} axes, got sizes {sizes}")
        return Grid(
            *(replace(axis, size=size) for axis, size in zip(self.axes, sizes, strict=True))
        )

    def resample(
        self, u: Float[Tensor, "*batch_and_space"], other: AbstractGrid
    ) -> Float[Tensor, "*batch_and_other_space"]:
        """Evaluate the eigenfunction expansion of ``u`` on another grid of the same domain.

        Between axes of one boundary kind modes are cut or padded with zeros (FFT); between kinds –
        cell centres to nodes, say – the modes are summed at the other's points. Exact for every
        field that both grids resolve.
        """
        if not isinstance(other, Grid) or other.ndim != self.ndim:
            raise ValueError(f"cannot resample from {self} to {other}")
        self.check(u)
        for i, (axis, target) in enumerate(zip(self.axes, other.axes, strict=True)):
            if not (
                _are_close(axis.length, target.length) and _are_close(axis.origin, target.origin)
            ):
                raise ValueError(
                    f"axis {axis.name!r} spans [{axis.origin}, {axis.origin + axis.length}] here but "
                    f"[{target.origin}, {target.origin + target.length}] on the other grid; both must cover one domain"
                )
            if axis == target:
                continue
            c = axis.to_modes(u.movedim(i - self.ndim, -1))
            if axis.boundary == target.boundary:
                values = target.from_modes(axis.carried_over(c, target))
            else:
                kept = min(axis.mode_count, target.size)
                values = c[..., :kept] @ axis.basis(target.points(u.device))[:kept].to(u.dtype)
            u = values.movedim(-1, i - self.ndim)
        return u

    def subsample(
        self, u: Float[Tensor, "*batch_and_space"], coarser: AbstractGrid
    ) -> Float[Tensor, "*batch_and_other_space"]:
        """Pick the values of ``u`` at the nodes of ``coarser``, every one of which must be a node
        here."""
        self.check(u)
        axes = self._with_my_axes(coarser).axes
        for i, (axis, target) in enumerate(zip(self.axes, axes, strict=True)):
            nodes = slice_of_nodes(axis, target)
            u = u.movedim(i - self.ndim, -1)[..., nodes].movedim(-1, i - self.ndim)
        return u

    def can_subsample(self, coarser: AbstractGrid) -> bool:
        """Return true if every node of ``coarser`` is a node of this grid."""
        try:
            for axis, target in zip(self.axes, self._with_my_axes(coarser).axes, strict=True):
                slice_of_nodes(axis, target)
        except ValueError:
            return False
        return True

    def _with_my_axes(self, other: AbstractGrid) -> Grid:
        if not isinstance(other, Grid) or other.ndim != self.ndim:
            raise ValueError(f"the nodes of {other} are not among those of {self}")
        return other

    def without_border(
        self, u: Float[Tensor, "*batch_and_space"], cells: AbstractGrid | None = None
    ) -> Float[Tensor, "*batch_and_space"]:
        """Return ``u`` with zeros on the border of its Dirichlet axes.

        With ``cells``, a grid of the same axes, what is taken away falls linearly to zero over one of
        its cells: on that grid nothing changes, on finer ones there is no jump.
        """
        self.check(u)
        cells = self if cells is None else self._with_my_axes(cells)
        for i, (axis, coarse) in enumerate(zip(self.axes, cells.axes, strict=True)):
            if axis.boundary == "dirichlet":
                dim = i - self.ndim
                last = axis.size - 1
                steps = torch.arange(axis.size, dtype=u.dtype, device=u.device)
                weight = (1 - steps * ((coarse.size - 1) / last)).clamp(min=0)
                weight = weight.reshape(-1, *[1] * (-1 - dim))
                u = u - weight * u.narrow(dim, 0, 1) - weight.flip(0) * u.narrow(dim, last, 1)
        return u


def _one_for_each_axis(what: str, value: float | Sequence[float], count: int) -> list[float]:
    value = plain(value)
    if isinstance(value, (int, float)):
        return [float(value)] * count
    if len(value) != count:
        raise ValueError(f"{what} needs one value or {count}, got {value!r}")
    return [float(v) for v in value]


def _are_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
