"""What an equation finds on a grid: its Laplacian's eigenbasis, dealiased, and derivatives of fields.

One rule holds on every basis: of the modes that a grid resolves the lowest two thirds are kept, of the
state and of the nonlinear term. The product of two fields is then free of aliasing on periodic axes, on
axes with cosines, and by Gauss' quadrature on the sphere; higher powers alias only from what the state
has beyond. On axes with sines odd powers of a field are series of sines again, and converge as fast;
even powers are not zero at the walls, and their series converge as 1/k only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor

from sobolev.grids import AbstractGrid, Axis, Grid, SphereGrid
from sobolev.grids.fourier import TorusModes
from sobolev.grids.spherical_vectors import velocity, vorticity_and_divergence

Field = Float[Tensor, "*batch_and_space"]
"""Values at the nodes."""
Modes = Inexact[Tensor, "*batch_and_modes"]
"""Coefficients of the kept eigenfunctions: complex on a torus, real elsewhere."""


@dataclass(frozen=True)
class InModes:
    """A field that is known by its modes, which no transform need find again; it takes sums and factors."""

    modes: Modes

    def __add__(self, other: InModes) -> InModes:
        return InModes(self.modes + other.modes)

    def __sub__(self, other: InModes) -> InModes:
        return InModes(self.modes - other.modes)

    def __mul__(self, factor: float | Float[Tensor, ""]) -> InModes:
        return InModes(factor * self.modes)

    __rmul__ = __mul__

    def __neg__(self) -> InModes:
        return InModes(-self.modes)


class Space(ABC):
    """A grid's eigenbasis, cut to two thirds, in float64 on one device.

    Attributes:
        grid: the nodes.
        eigenvalues: of −Δ for each kept mode.
        rim: true for the highest tenth of the kept modes along an axis, or of the degrees. Axes with too
            few modes to tell have none.
        has_complex_modes: whether modes are complex numbers.
    """

    grid: AbstractGrid
    eigenvalues: Float[Tensor, "*modes"]
    rim: Bool[Tensor, "*modes"]
    has_complex_modes = False

    @property
    def ndim(self) -> int:
        """The number of space axes."""
        return self.grid.ndim

    @abstractmethod
    def to_modes(self, u: Field) -> Modes:
        """Return the kept modes of a field."""

    @abstractmethod
    def to_nodes(self, v: Modes) -> Field:
        """Return the field of kept modes."""

    @abstractmethod
    def gradient(self, u: Field) -> tuple[Field, ...]:
        """Return ∂u/∂x_i at the nodes, one for each axis.

        Raises:
            ValueError: where the basis has none.
        """

    @abstractmethod
    def divergence(self, *flux: Field) -> InModes:
        """Return Σ ∂F_i/∂x_i of a flux, one part for each axis.

        Raises:
            ValueError: where its basis is not that of the field.
        """

    @abstractmethod
    def wavenumbers(self) -> tuple[Float[Tensor, " ..."], ...]:
        """Return the angular wavenumbers along each axis, each of a shape that broadcasts to modes.

        Raises:
            ValueError: where axes are not periodic.
        """

    @abstractmethod
    def transport(self, vorticity: Field, q: Field) -> InModes:
        """Return ∇·(u q) = J(ψ, q), u the flow on a plane or a sphere that has this vorticity Δψ and no
        divergence. A mean of the vorticity is ignored.

        Raises:
            ValueError: where there is no such flow, or its basis is not that of the field.
        """

    def laplacian(self, u: Field) -> InModes:
        """Return Δu."""
        return InModes(-self.eigenvalues * self.to_modes(u))

    def product(self, a: Field, b: Field) -> Field:
        """Return a b without what the rule cuts."""
        return self.to_nodes(self.to_modes(a * b))


def space_on(grid: AbstractGrid, device: torch.device, *, dealiased: bool = True) -> Space:
    """Return what an equation finds on a grid; linear ones need no rule and keep all modes.

    >>> space_on(Grid.periodic(12), torch.device("cpu")).eigenvalues.div(4 * math.pi**2).tolist()
    [0.0, 1.0, 4.0, 9.0]

    Raises:
        ValueError: for a grid with too few nodes, or of another kind.
    """
    if isinstance(grid, Grid) and all(axis.boundary == "periodic" for axis in grid.axes):
        return Torus(grid, device, dealiased)
    if isinstance(grid, (Grid, SphereGrid)):
        return Eigenbasis(grid, device, dealiased)
    raise ValueError(f"equations are solved on a Grid or a SphereGrid, got {type(grid).__name__}")


class Torus(Space):
    """Complex Fourier modes of periodic axes."""

    grid: Grid
    has_complex_modes = True

    def __init__(self, grid: Grid, device: torch.device, dealiased: bool = True) -> None:
        if min(grid.shape) < 4:
            raise ValueError(f"a periodic axis needs at least 4 nodes to be solved on, got {grid}")
        self.grid = grid
        self._modes = TorusModes(grid, device, dealiased=dealiased)
        squares = [k**2 for k in self._modes.wavenumbers]
        self.eigenvalues = sum(squares[1:], squares[0])
        self._derivatives = [1j * k for k in self._modes.wavenumbers]
        self._inverse_eigenvalues = torch.where(self.eigenvalues > 0, 1 / self.eigenvalues, 0.0)
        outer = [_outer(k.abs()) for k in self._modes.wavenumbers]
        self.rim = torch.stack(torch.broadcast_tensors(*outer)).any(0)

    def to_modes(self, u: Field) -> Modes:
        return self._modes.transform(u)

    def to_nodes(self, v: Modes) -> Field:
        return self._modes.inverse(v)

    def gradient(self, u: Field) -> tuple[Field, ...]:
        v = self.to_modes(u)
        return tuple(self.to_nodes(ik * v) for ik in self._derivatives)

    def divergence(self, *flux: Field) -> InModes:
        _check_parts(flux, self.grid)
        parts = [ik * self.to_modes(f) for ik, f in zip(self._derivatives, flux, strict=True)]
        return InModes(sum(parts[1:], parts[0]))

    def transport(self, vorticity: Field, q: Field) -> InModes:
        if self.ndim != 2:
            raise ValueError(f"a flow has a vorticity on two axes, the grid has {self.ndim}")
        along_y, along_x = self._derivatives
        stream = -self._inverse_eigenvalues * self.to_modes(vorticity)
        u, v = self.to_nodes(-along_y * stream), self.to_nodes(along_x * stream)
        return self.divergence(v * q, u * q)

    def wavenumbers(self) -> tuple[Float[Tensor, " ..."], ...]:
        return self._modes.wavenumbers


class Eigenbasis(Space):
    """The real eigenfunctions of a box with walls, or of a sphere."""

    def __init__(
        self, grid: Grid | SphereGrid, device: torch.device, dealiased: bool = True
    ) -> None:
        self.grid = grid
        self.eigenvalues = grid.eigenvalues(device)
        kept, inner = _kept_on(grid, device, 1.0), _kept_on(grid, device, 0.9)
        self._kept = kept if dealiased else torch.ones_like(kept)
        self.rim = kept > inner

    def to_modes(self, u: Field) -> Modes:
        return self.grid.to_modes(u) * self._kept

    def to_nodes(self, v: Modes) -> Field:
        return self.grid.from_modes(v)

    def gradient(self, u: Field) -> tuple[Field, ...]:
        if not isinstance(self.grid, Grid):
            raise ValueError(
                "the gradient of a field on a sphere is a wind, not one more field for each axis; write the equation "
                "with space.laplacian, or on a flat grid"
            )
        u = self.to_nodes(self.to_modes(u))
        dims = range(-self.grid.ndim, 0)
        return tuple(
            _derivative(u.movedim(dim, -1), axis).movedim(-1, dim)
            for dim, axis in zip(dims, self.grid.axes, strict=True)
        )

    def divergence(self, *flux: Field) -> InModes:
        raise ValueError(
            "a flux through walls belongs to another basis than its field: where one is of sines, the other is of "
            "cosines. Write the term as a product with space.gradient, or use periodic axes"
        )

    def transport(self, vorticity: Field, q: Field) -> InModes:
        if not isinstance(self.grid, SphereGrid):
            raise ValueError(
                "the flow of a vorticity passes through walls here; use two periodic axes, or a sphere"
            )
        wind = velocity(vorticity, torch.zeros_like(vorticity), self.grid)
        return InModes(
            self.to_modes(vorticity_and_divergence(wind * q[..., None, :, :], self.grid)[1])
        )

    def wavenumbers(self) -> tuple[Float[Tensor, " ..."], ...]:
        raise ValueError(
            "derivatives of odd order turn sines into cosines, so that they have no symbol on axes with walls, nor "
            "on a sphere; this equation needs periodic axes"
        )


_FEWEST = 6
"""Modes along an axis of which some are called the highest."""


def _outer(numbers: Float[Tensor, "*modes"]) -> Bool[Tensor, "*modes"]:
    """Return true for the highest tenth of the wavenumbers along an axis."""
    return (numbers > 0.9 * numbers.max()) & (len(numbers.unique()) > _FEWEST)


def _kept_on(
    grid: Grid | SphereGrid, device: torch.device, share: float
) -> Float[Tensor, "*modes"]:
    """Return 1 for the modes of this share of the lowest two thirds along each axis, or of the degrees, and 0
    for others."""
    if isinstance(grid, SphereGrid):
        degrees = ((grid.eigenvalues(device) * grid.radius**2 + 0.25).sqrt() - 0.5).round()
        share = share if grid.lmax > 1.5 * _FEWEST else 1.0
        return (3 * degrees < 2 * share * grid.lmax).double()
    kept = torch.ones((), dtype=torch.float64, device=device)
    for axis in grid.axes:
        numbers = axis.wavenumbers(device) * axis.length / math.pi
        # a wave of a periodic axis has two half waves
        resolved = axis.size if axis.boundary != "dirichlet" else axis.size - 1
        waves = resolved / (3 if axis.boundary == "periodic" else 1.5)
        part = share if waves > _FEWEST else 1.0
        kept = kept[..., None] * (3 * numbers < 2 * part * resolved)
    return kept


def _derivative(u: Float[Tensor, "*batch x"], axis: Axis) -> Float[Tensor, "*batch x"]:
    """Return ∂u/∂x at the nodes of an axis, by its odd or even continuation to a circle."""
    whole, length = u, axis.length
    if axis.boundary == "dirichlet":
        whole, length = torch.cat([u, -u[..., 1:-1].flip(-1)], dim=-1), 2 * length
    elif axis.boundary == "neumann":
        whole, length = torch.cat([u, u.flip(-1)], dim=-1), 2 * length
    v = torch.fft.rfft(whole)
    k = 2 * math.pi / length * torch.arange(v.shape[-1], dtype=u.dtype, device=u.device)
    if whole.shape[-1] % 2 == 0:
        k[-1] = 0.0  # the highest cosine, whose derivative vanishes at the nodes
    return torch.fft.irfft(1j * k * v, n=whole.shape[-1])[..., : axis.size]


def _check_parts(flux: tuple[Field, ...], grid: AbstractGrid) -> None:
    if len(flux) != grid.ndim:
        raise ValueError(f"a flux has one part for each axis, {grid.ndim} here; got {len(flux)}")
