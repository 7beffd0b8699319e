"""The matrix of Darcy flow, and the permeabilities that it is made of."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.stencils import Stencil
from sobolev.solvers.elliptic.unknowns import Unknowns

TwoFaces = tuple[Float[Tensor, " batch *inner"], Float[Tensor, " batch *inner"]]


class Stiffness:
    """The matrix of −∇·(a ∇·) on the unknowns of a grid, three, five or seven points in one, two or three
    dimensions, as an action on ``(batch, *inner)``.

    Fluxes are a times differences of u: where a is large u is nearly constant, and the product keeps
    its digits, which an assembled diagonal would not.

    Args:
        a: permeability ``(batch, *space)``, or ``(batch, axes, *space)`` with a value for each axis.
        grid: what stands in its walls is in ``Unknowns``.
    """

    def __init__(self, a: Float[Tensor, " batch *axes_and_space"], grid: Grid) -> None:
        self.nodes = nodes = Unknowns(grid)
        self.weights = axis_weights(a, grid)
        self.faces = [
            nodes.face_sums(one, i) / (2 * h**2)
            for i, (one, h) in enumerate(zip(along_axes(a, grid), nodes.spacings, strict=True))
        ]

    def __call__(self, u: Float[Tensor, "#batch *inner"]) -> Float[Tensor, " batch *inner"]:
        return self._divergence(self.nodes.ringed(u))

    def of_all(self, u: Float[Tensor, "#batch *space"]) -> Float[Tensor, " batch *inner"]:
        """Return −∇·(a ∇u) at the unknowns of a field on all nodes, whose values on Dirichlet walls count."""
        return self._divergence(self.nodes.all_ringed(u))

    def energy(self, u: Float[Tensor, "#batch *space"]) -> Float[Tensor, " batch"]:
        """Return ∫ ∇u·a∇u of fields on all nodes."""
        ringed = self.nodes.all_ringed(u)
        sums = []
        for i, faces in enumerate(self.faces):
            before, behind = self.nodes.between(ringed, i)
            flow = faces * (behind - before).square()
            sums.append(self.nodes.open_faces(flow, i).flatten(1).sum(1))
        return self.nodes.cell * functools.reduce(torch.add, sums)

    def dual_energy(self, psi: Float[Tensor, " batch *space"]) -> Float[Tensor, " batch"]:
        """Return ∫ τ·a⁻¹τ of the flux τ = W ∇ψ, with the weights W of the axes, 1 where there are none."""
        ringed = self.nodes.all_ringed(psi)
        sums = []
        for i, (faces, h) in enumerate(zip(self.faces, self.nodes.spacings, strict=True)):
            before, behind = (self.nodes.open_faces(t, i) for t in self.nodes.between(ringed, i))
            flow = (behind - before).square() / (h**4 * self.nodes.open_faces(faces, i))
            total = flow.flatten(1).sum(1)
            sums.append(total if self.weights is None else self.weights[:, i].square() * total)
        return self.nodes.cell * functools.reduce(torch.add, sums)

    def least_face(self) -> Float[Tensor, " batch"]:
        """Return the least coefficient of an open face over the weight of its axis: A ≥ least · (−∇·W∇)."""
        least = []
        for i, (faces, h) in enumerate(zip(self.faces, self.nodes.spacings, strict=True)):
            value = self.nodes.open_faces(faces, i).flatten(1).amin(1) * h**2
            least.append(value if self.weights is None else value / self.weights[:, i])
        return functools.reduce(torch.minimum, least)

    def rounding(self, u: Float[Tensor, " batch *inner"]) -> Float[Tensor, " batch *inner"]:
        """Return ε |A| |u|, the most that A u may change at each node when ``u`` is rounded."""
        ringed = self.nodes.ringed(u.abs())
        total = torch.zeros_like(u)
        for i, faces in enumerate(self.faces):
            before, behind = self.nodes.between(ringed, i)
            first, second = _two_faces((before + behind) * faces, i)
            total += first + second
        return torch.finfo(u.dtype).eps * total

    def links(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Stencil, Float[Tensor, " batch *inner"]]:
        """Return the links between unknowns by displacement, and the excess: the links to Dirichlet walls.

        Not for periodic axes, whose ends are linked.
        """
        links: Stencil = {}
        excess = torch.zeros_like(_two_faces(self.faces[0], 0)[0], dtype=dtype)
        for i, faces in enumerate(self.faces):
            ends = ((-1, 0), (1, faces.shape[i + 1] - 2))
            for (side, end), view in zip(ends, _two_faces(faces, i), strict=True):
                link = view.to(dtype, copy=True)
                border = link.narrow(i + 1, end, 1)
                excess.narrow(i + 1, end, 1).add_(border)
                border.zero_()
                links[tuple(side * int(j == i) for j in range(len(self.faces)))] = link
        return links, excess

    def _divergence(
        self, ringed: Float[Tensor, "#batch *ringed"]
    ) -> Float[Tensor, " batch *inner"]:
        flows = self._flows(ringed)
        first, second = next(flows)
        total = second - first
        for first, second in flows:
            total.add_(second).sub_(first)
        return total

    def _flows(self, ringed: Float[Tensor, "#batch *ringed"]) -> Iterator[TwoFaces]:
        """Yield −a ∇u on the faces before and behind each unknown, axis after axis, over their distance."""
        for i, faces in enumerate(self.faces):
            before, behind = self.nodes.between(ringed, i)
            yield _two_faces((before - behind).mul_(faces), i)


def _two_faces(faces: Float[Tensor, " batch *faces"], i: int) -> TwoFaces:
    """Return views of the faces before and behind each unknown along axis ``i``."""
    count = faces.shape[i + 1] - 1
    return faces.narrow(i + 1, 0, count), faces.narrow(i + 1, 1, count)


def along_axes(
    a: Float[Tensor, " batch *axes_and_space"], grid: Grid
) -> list[Float[Tensor, " batch *space"]]:
    """Return the permeability along each axis, the same where there is one for all."""
    if a.ndim == grid.ndim + 1:
        return [a] * grid.ndim
    return list(a.unbind(1))


def contrast(a: Float[Tensor, " batch *axes_and_space"], grid: Grid) -> Float[Tensor, " batch"]:
    """Return max a / min a of each sample, the largest over the axes."""
    values = a.flatten(-grid.ndim)
    ratio = values.amax(-1) / values.amin(-1)
    return ratio if ratio.ndim == 1 else ratio.amax(1)


def axis_weights(
    a: Float[Tensor, " batch *axes_and_space"], grid: Grid
) -> Float[Tensor, "batch axes"] | None:
    """Return the geometric mean of the least and the largest permeability along each axis, or None where
    there is one for all of them: the constant medium that is nearest to an anisotropic one."""
    if a.ndim == grid.ndim + 1:
        return None
    values = a.detach().flatten(2)
    return (values.amin(2) * values.amax(2)).sqrt()


def check_permeability(permeability: Shaped[Tensor, " ..."], grid: Grid) -> None:
    """Refuse what is no batch of positive fields, one or one for each axis, on a box."""
    if not isinstance(grid, Grid) or not 1 <= grid.ndim <= 3:
        raise ValueError(f"Darcy is solved on boxes of one to three axes, got {grid}")
    grid.check(permeability)
    lead = permeability.shape[: permeability.ndim - grid.ndim]
    if not (len(lead) == 1 or (len(lead) == 2 and lead[1] == grid.ndim)) or not lead[0]:
        space = ", ".join(grid.dims)
        raise ValueError(
            f"expected permeabilities of shape (batch, {space}), or (batch, {grid.ndim}, {space}) with one for each "
            f"axis, got {tuple(permeability.shape)}"
        )
    good = (permeability.isfinite() & (permeability > 0)).flatten(1).all(dim=1)
    if not bool(good.all()):
        first = int((~good).nonzero()[0, 0])
        raise ValueError(
            f"the permeability must be positive and finite; {int((~good).sum())} of {len(good)} fields are not, the "
            f"first is number {first} (least value {float(permeability[first].min()):.3g})"
        )


def check_plane_of_zeros(grid: Grid) -> None:
    """Refuse all but two Dirichlet axes, for what is made for them alone."""
    if grid.ndim != 2 or any(axis.boundary != "dirichlet" for axis in grid.axes):
        raise ValueError(f"this needs two Dirichlet axes (Grid.dirichlet(ny, nx)), got {grid}")
