"""One level of the multigrid: its matrix, the way to the next coarser level, and the cycle.

On every level the nodes are parted into four colours by the parity of row and column::

    Z Y Z Y      C  the nodes of the next coarser grid
    X C X C      X  between two of them in a row
    Z Y Z Y      Y  between two of them in a column
    X C X C      Z  amid four of them

Nodes of one colour do not touch in a nine-point matrix: Gauss–Seidel updates them all at once, on
contiguous arrays. A row of the matrix is kept as its *links* n (the off-diagonal entries, negated,
by displacement) and its *excess* σ (the row sum: what flows out through the border), so that the
diagonal Σn + σ never loses a weak link beside a strong one to cancellation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sobolev.solvers.elliptic.stencils import (
    Offset,
    Stencil,
    add_product,
    neighbours,
    ringed,
    summed,
    transposed_stencil,
    unringed,
)

Terms = list[tuple[Float[Tensor, "batch y x"], Float[Tensor, "batch y x"]]]
"""Weights beside views of what they weigh."""

# (row, column) modulo 2
_C = (1, 1)
_X = (1, 0)
_Y = (0, 1)
_Z = (0, 0)
_COLOURS = (_C, _X, _Y, _Z)
_HALF_OF_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the other four follow by symmetry


@dataclass(frozen=True)
class ColouredMatrix:
    """A nine-point matrix by the colour of its rows, all arrays ringed."""

    links: dict[Offset, Stencil]
    excess: Stencil
    diagonal: Stencil


@dataclass(frozen=True)
class Prolongation:
    """P by the colour that receives, from C to each; and δ = 1 − P 1, free of cancellation."""

    weights: dict[Offset, Stencil]
    deficit: dict[Offset, Tensor]


class MultigridLevel:
    """A matrix, the interpolation from the next coarser grid, and the cycle.

    Both are scaled so that the diagonal is one: relaxing is then no division, and float32 meets no
    number far from one.
    """

    def __init__(
        self, links: Stencil, excess: Float[Tensor, "batch y x"], dtype: torch.dtype
    ) -> None:
        rows, columns = excess.shape[1:]
        # a line of nodes one wide must live on below: it is shifted to an odd place
        self.front = (int(rows == 1), int(columns == 1))
        self.inner = ((rows + self.front[0]) // 2, (columns + self.front[1]) // 2)
        A = self._split_matrix(links, excess)
        P = prolongation(A)
        self.coarser = self._galerkin(A, P)
        self._scale(A, P, dtype)

    def _split_matrix(self, links: Stencil, excess: Float[Tensor, "batch y x"]) -> ColouredMatrix:
        parts = {d: self._split(link) for d, link in links.items()}
        n = {p: {d: part[p] for d, part in parts.items()} for p in _COLOURS}
        sigma = self._split(excess, fill=1.0)  # nodes that only fill up are unknowns of their own
        return ColouredMatrix(n, sigma, {p: summed(sigma[p], *n[p].values()) for p in _COLOURS})

    def _split(
        self, t: Float[Tensor, "batch y x"], fill: float = 0.0
    ) -> dict[Offset, Float[Tensor, "batch half_y half_x"]]:
        """Return the nodes of each colour, ringed."""
        fy, fx = self.front
        _, rows, columns = t.shape
        t = pad(t, (fx, (columns + fx) % 2, fy, (rows + fy) % 2), value=fill)
        return {p: ringed(t[:, p[0] :: 2, p[1] :: 2]) for p in _COLOURS}

    def _galerkin(
        self, A: ColouredMatrix, P: Prolongation
    ) -> tuple[Stencil, Float[Tensor, "batch y x"]]:
        """Return links and excess of Pᵀ A P. Rows Z of A P vanish; its sums are σ(1 − δ) − Σ n (δ − δ')."""
        matrix: Stencil = {}
        excess = torch.zeros_like(unringed(A.excess[_C]))
        for p in (_C, _X, _Y):
            product = {o: A.diagonal[p] * w for o, w in P.weights[p].items()}
            sums = A.excess[p] * (1 - P.deficit[p])
            for d, link in A.links[p].items():
                q, o = neighbouring_colour(p, d)
                add_product(product, {o: link}, P.weights[q], sign=-1)
                jump = unringed(P.deficit[p]) - neighbours(P.deficit[q], o)
                unringed(sums).addcmul_(unringed(link), jump, value=-1)
            restriction = transposed_stencil(P.weights[p])
            add_product(matrix, restriction, product, only=_HALF_OF_NEIGHBOURS)
            for o, w in restriction.items():
                excess.addcmul_(unringed(w), neighbours(sums, o))
        rows, columns = self.inner
        links = {}
        for y, x in _HALF_OF_NEIGHBOURS:
            links[y, x] = -unringed(matrix[y, x])[:, :rows, :columns]
            links[-y, -x] = -neighbours(matrix[y, x], (-y, -x))[:, :rows, :columns]
        return links, excess[:, :rows, :columns]

    def _scale(self, A: ColouredMatrix, P: Prolongation, dtype: torch.dtype) -> None:
        """Keep the scaled weights in the cycle's dtype, each beside a view of the nodes that it weighs."""
        root = {p: ringed(unringed(d).rsqrt()) for p, d in A.diagonal.items()}
        links, excess = self.coarser
        below = ringed(torch.ones_like(unringed(root[_C])))
        rows, columns = self.inner
        below[:, 1 : rows + 1, 1 : columns + 1] = summed(excess, *links.values()).rsqrt()

        self.scale = {p: unringed(r).to(dtype) for p, r in root.items()}
        self.f = {p: torch.zeros_like(s) for p, s in self.scale.items()}
        self.u = {p: ringed(f) for p, f in self.f.items()}
        self.r = {p: torch.zeros_like(self.u[p]) for p in (_X, _Y)}
        self.e = torch.zeros_like(self.u[_C])
        self.earlier: dict[Offset, Terms] = {p: [] for p in _COLOURS}
        self.later: dict[Offset, Terms] = {p: [] for p in _COLOURS}
        for p in _COLOURS:
            for d, link in A.links[p].items():
                q, o = neighbouring_colour(p, d)
                weight = (unringed(link) * unringed(root[p]) * neighbours(root[q], o)).to(dtype)
                before = _COLOURS.index(q) < _COLOURS.index(p)
                (self.earlier if before else self.later)[p].append(
                    (weight, neighbours(self.u[q], o))
                )
        self.same = (unringed(below) / unringed(root[_C])).to(dtype)
        self.up: dict[Offset, Terms] = {}
        self.down: Terms = []
        for p in (_X, _Y):
            weights = {
                o: ringed(unringed(w) / unringed(root[p]) * neighbours(below, o)).to(dtype)
                for o, w in P.weights[p].items()
            }
            self.up[p] = [(unringed(w), neighbours(self.e, o)) for o, w in weights.items()]
            self.down += [
                (unringed(w), neighbours(self.r[p], o))
                for o, w in transposed_stencil(weights).items()
            ]

    def cycle(
        self,
        f: Float[Tensor, "batch y x"],
        coarse: Callable[[Float[Tensor, "batch y x"]], Float[Tensor, "batch y x"]],
        *,
        natural: bool,
    ) -> Float[Tensor, "batch y x"]:
        """Return approximately A⁻¹ f; ``natural``: both in natural units, not scaled ones."""
        self._load(f, natural)
        for p in _COLOURS:  # from zero: only the colours already relaxed enter
            self._relax(p, self.earlier[p])
        self._correct(coarse(self._restricted()))
        for p in reversed(_COLOURS):
            self._relax(p, self.later[p] + self.earlier[p])
        return self._unloaded(f, natural)

    def _relax(self, p: Offset, terms: Terms) -> None:
        u = unringed(self.u[p])
        u.copy_(self.f[p])
        for weight, neighbour in terms:
            u.addcmul_(weight, neighbour)

    def _restricted(self) -> Float[Tensor, "batch coarse_y coarse_x"]:
        """Return Pᵀ r after the sweep from zero: r is due to the colours that came later, and 0 in Z."""
        residual = {_C: torch.zeros_like(self.f[_C])}
        residual |= {p: unringed(r).zero_() for p, r in self.r.items()}
        for p, r in residual.items():
            for weight, neighbour in self.later[p]:
                r.addcmul_(weight, neighbour)
        total = residual[_C].mul_(self.same)
        for weight, r in self.down:
            total.addcmul_(weight, r)
        rows, columns = self.inner
        return total[:, :rows, :columns]

    def _correct(self, e: Float[Tensor, "batch coarse_y coarse_x"]) -> None:
        """Add P e to u, but for Z, which the sweep that follows computes anew."""
        rows, columns = self.inner
        self.e[:, 1 : rows + 1, 1 : columns + 1] = e
        unringed(self.u[_C]).addcmul_(self.same, unringed(self.e))
        for p, terms in self.up.items():
            for weight, neighbour in terms:
                unringed(self.u[p]).addcmul_(weight, neighbour)

    def _places(
        self, f: Float[Tensor, "batch y x"], p: Offset
    ) -> tuple[Float[Tensor, "batch half_y half_x"], tuple[slice, ...]]:
        """Return the nodes of colour p in a plain array, and their places in the colour's own."""
        py, px = p
        fy, fx = self.front
        part = f[:, (py + fy) % 2 :: 2, (px + fx) % 2 :: 2]
        y = int(fy > py)
        x = int(fx > px)
        return part, (slice(None), slice(y, y + part.shape[1]), slice(x, x + part.shape[2]))

    def _load(self, f: Float[Tensor, "batch y x"], natural: bool) -> None:
        for p, own in self.f.items():
            part, place = self._places(f, p)
            own[place] = part
            if natural:
                own.mul_(self.scale[p])

    def _unloaded(
        self, like: Float[Tensor, "batch y x"], natural: bool
    ) -> Float[Tensor, "batch y x"]:
        plain = torch.empty_like(like)
        for p, u in self.u.items():
            part, place = self._places(plain, p)
            part.copy_((unringed(u) * self.scale[p] if natural else unringed(u))[place])
        return plain


def neighbouring_colour(colour: Offset, displacement: Offset) -> tuple[Offset, Offset]:
    """Return the colour of the node at ``displacement``, and its offset among those of that colour."""
    y = colour[0] + displacement[0]
    x = colour[1] + displacement[1]
    return (y % 2, x % 2), (y // 2, x // 2)


def prolongation(A: ColouredMatrix) -> Prolongation:
    """Return P, where X averages its two neighbours in the row, weighted by its links with their columns; Y likewise
    in the column; Z is what makes its own residual vanish."""
    n = A.links
    sigma = A.excess
    tiny = torch.finfo(sigma[_C].dtype).tiny
    weights: dict[Offset, Stencil] = {_C: {(0, 0): ringed(torch.ones_like(unringed(sigma[_C])))}}
    deficit = {_C: torch.zeros_like(sigma[_C])}
    for p, axis, before in ((_X, 1, (0, -1)), (_Y, 0, (-1, 0))):
        # a link that the Galerkin product made negative does not say which side is nearer
        left, right = (
            summed(*(w.clamp(min=0) for d, w in n[p].items() if d[axis] == side))
            for side in (-1, 1)
        )
        out = sigma[p].clamp(min=0)
        total = (left + right + out).clamp(min=tiny)
        weights[p] = {before: left / total, (0, 0): right / total}
        deficit[p] = out / total
    weights[_Z] = {}
    missing = sigma[_Z].clone()
    own = ringed(1 / unringed(A.diagonal[_Z]))
    for d, link in n[_Z].items():
        q, o = neighbouring_colour(_Z, d)
        add_product(weights[_Z], {o: link * own}, weights[q])
        unringed(missing).addcmul_(unringed(link), neighbours(deficit[q], o))
    deficit[_Z] = missing * own
    return Prolongation(weights, deficit)
