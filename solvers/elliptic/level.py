"""One level of the multigrid: its matrix, the way to the next coarser level, and the cycle.

On every level the nodes are parted into colours by the parity of their place along each axis, four of
them in two dimensions::

    Z Y Z Y      C  the nodes of the next coarser grid: odd along every axis
    X C X C      X  between two of them in a row
    Z Y Z Y      Y  between two of them in a column
    X C X C      Z  amid four of them: even along every axis

Nodes of one colour do not touch in a matrix that links neighbours, diagonal ones too (nine points in two
dimensions, 27 in three): Gauss–Seidel updates them all at once, on contiguous arrays. A row of the
matrix is kept as its *links* n (the off-diagonal entries, negated, by displacement) and its *excess* σ
(the row sum: what flows out through the border), so that the diagonal Σn + σ never loses a weak link
beside a strong one to cancellation.
"""

from __future__ import annotations

import itertools
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
    added,
    half_of_neighbours,
    negated,
    neighbours,
    ringed,
    summed,
    transposed_stencil,
    unringed,
)

Terms = list[tuple[Float[Tensor, " batch *space"], Float[Tensor, " batch *space"]]]
"""Weights beside views of what they weigh."""


def colours(ndim: int) -> list[Offset]:
    """Return the parities along each axis, all odd (C) first and all even (Z) last.

    >>> colours(2)
    [(1, 1), (1, 0), (0, 1), (0, 0)]
    """
    return list(itertools.product((1, 0), repeat=ndim))


@dataclass(frozen=True)
class ColouredMatrix:
    """A matrix by the colour of its rows, all arrays ringed."""

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
        self, links: Stencil, excess: Float[Tensor, " batch *space"], dtype: torch.dtype
    ) -> None:
        sizes = excess.shape[1:]
        self.colours = colours(len(sizes))
        # a line of nodes one wide must live on below: it is shifted to an odd place
        self.front = tuple(int(n == 1) for n in sizes)
        coarse = [(n + f) // 2 for n, f in zip(sizes, self.front, strict=True)]
        self.kept = (slice(None), *(slice(n) for n in coarse))
        A = self._split_matrix(links, excess)
        P = prolongation(A)
        self.coarser = self._galerkin(A, P)
        self._scale(A, P, dtype)

    def _split_matrix(
        self, links: Stencil, excess: Float[Tensor, " batch *space"]
    ) -> ColouredMatrix:
        parts = {d: self._split(link) for d, link in links.items()}
        n = {p: {d: part[p] for d, part in parts.items()} for p in self.colours}
        sigma = self._split(excess, fill=1.0)  # nodes that only fill up are unknowns of their own
        return ColouredMatrix(n, sigma, {p: summed(sigma[p], *n[p].values()) for p in self.colours})

    def _split(
        self, t: Float[Tensor, " batch *space"], fill: float = 0.0
    ) -> dict[Offset, Float[Tensor, " batch *half_space"]]:
        """Return the nodes of each colour, ringed."""
        widths = [(f, (n + f) % 2) for n, f in zip(t.shape[1:], self.front, strict=True)]
        t = pad(t, [width for ends in reversed(widths) for width in ends], value=fill)
        return {p: ringed(t[(slice(None), *(slice(q, None, 2) for q in p))]) for p in self.colours}

    def _galerkin(
        self, A: ColouredMatrix, P: Prolongation
    ) -> tuple[Stencil, Float[Tensor, " batch *space"]]:
        """Return links and excess of Pᵀ A P. Rows Z of A P vanish; its sums are σ(1 − δ) − Σ n (δ − δ')."""
        half = half_of_neighbours(len(self.front))
        matrix: Stencil = {}
        excess = torch.zeros_like(unringed(A.excess[self.colours[0]]))
        for p in self.colours[:-1]:
            restriction = transposed_stencil(P.weights[p])
            needed = {added(d, negated(o)) for d in half for o in restriction}
            product = {o: A.diagonal[p] * w for o, w in P.weights[p].items() if o in needed}
            sums = A.excess[p] * (1 - P.deficit[p])
            own = unringed(P.deficit[p])
            for d, link in A.links[p].items():
                q, o = neighbouring_colour(p, d)
                add_product(product, {o: link}, P.weights[q], sign=-1, only=needed)
                jump = own - neighbours(P.deficit[q], o)
                unringed(sums).addcmul_(unringed(link), jump, value=-1)
            add_product(matrix, restriction, product, only=half)
            for o, w in restriction.items():
                excess.addcmul_(unringed(w), neighbours(sums, o))
        links = {}
        for d in half:
            links[d] = -unringed(matrix[d])[self.kept]
            links[negated(d)] = -neighbours(matrix[d], negated(d))[self.kept]
        return links, excess[self.kept]

    def _scale(self, A: ColouredMatrix, P: Prolongation, dtype: torch.dtype) -> None:
        """Keep the scaled weights in the cycle's dtype, each beside a view of the nodes that it weighs."""
        first, *between, _ = self.colours
        root = {p: ringed(unringed(d).rsqrt()) for p, d in A.diagonal.items()}
        links, excess = self.coarser
        below = ringed(torch.ones_like(unringed(root[first])))
        unringed(below)[self.kept] = summed(excess, *links.values()).rsqrt()

        self.scale = {p: unringed(r).to(dtype) for p, r in root.items()}
        self.f = {p: torch.zeros_like(s) for p, s in self.scale.items()}
        whole = {p: ringed(f) for p, f in self.f.items()}
        rests = {p: torch.zeros_like(whole[p]) for p in between}
        correction = torch.zeros_like(whole[first])
        self.u = {p: unringed(u) for p, u in whole.items()}
        self.r = {p: unringed(r) for p, r in rests.items()}
        self.e = unringed(correction)
        self.earlier: dict[Offset, Terms] = {p: [] for p in self.colours}
        self.later: dict[Offset, Terms] = {p: [] for p in self.colours}
        for p in self.colours:
            for d, link in A.links[p].items():
                q, o = neighbouring_colour(p, d)
                weight = (unringed(link) * unringed(root[p]) * neighbours(root[q], o)).to(dtype)
                terms = self.earlier if q > p else self.later  # colours come in descending order
                terms[p].append((weight, neighbours(whole[q], o)))
        self.same = (unringed(below) / unringed(root[first])).to(dtype)
        self.up: dict[Offset, Terms] = {}
        self.down: Terms = []
        for p in between:
            weights = {
                o: ringed(unringed(w) / unringed(root[p]) * neighbours(below, o)).to(dtype)
                for o, w in P.weights[p].items()
            }
            self.up[p] = [(unringed(w), neighbours(correction, o)) for o, w in weights.items()]
            self.down += [
                (unringed(w), neighbours(rests[p], o))
                for o, w in transposed_stencil(weights).items()
            ]

    def cycle(
        self,
        f: Float[Tensor, " batch *space"],
        coarse: Callable[[Float[Tensor, " batch *space"]], Float[Tensor, " batch *space"]],
        *,
        natural: bool,
    ) -> Float[Tensor, " batch *space"]:
        """Return approximately A⁻¹ f; ``natural``: both in natural units, not scaled ones."""
        self._load(f, natural)
        for p in self.colours:  # from zero: only the colours already relaxed enter
            self._relax(p, self.earlier[p])
        self._correct(coarse(self._restricted()))
        for p in reversed(self.colours):
            self._relax(p, self.later[p] + self.earlier[p])
        return self._unloaded(f, natural)

    def _relax(self, p: Offset, terms: Terms) -> None:
        u = self.u[p]
        u.copy_(self.f[p])
        for weight, neighbour in terms:
            u.addcmul_(weight, neighbour)

    def _restricted(self) -> Float[Tensor, " batch *coarse_space"]:
        """Return Pᵀ r after the sweep from zero: r is due to the colours that came later, and 0 in Z."""
        first = self.colours[0]
        residual = {first: torch.zeros_like(self.f[first])}
        residual |= {p: r.zero_() for p, r in self.r.items()}
        for p, r in residual.items():
            for weight, neighbour in self.later[p]:
                r.addcmul_(weight, neighbour)
        total = residual[first].mul_(self.same)
        for weight, r in self.down:
            total.addcmul_(weight, r)
        return total[self.kept]

    def _correct(self, e: Float[Tensor, " batch *coarse_space"]) -> None:
        """Add P e to u, but for Z, which the sweep that follows computes anew."""
        self.e[self.kept] = e
        self.u[self.colours[0]].addcmul_(self.same, self.e)
        for p, terms in self.up.items():
            for weight, neighbour in terms:
                self.u[p].addcmul_(weight, neighbour)

    def _places(
        self, f: Float[Tensor, " batch *space"], p: Offset
    ) -> tuple[Float[Tensor, " batch *half_space"], tuple[slice, ...]]:
        """Return the nodes of colour p in a plain array, and their places in the colour's own."""
        nodes = (slice((q + f) % 2, None, 2) for q, f in zip(p, self.front, strict=True))
        part = f[(slice(None), *nodes)]
        starts = (int(f > q) for q, f in zip(p, self.front, strict=True))
        places = (slice(s, s + n) for s, n in zip(starts, part.shape[1:], strict=True))
        return part, (slice(None), *places)

    def _load(self, f: Float[Tensor, " batch *space"], natural: bool) -> None:
        for p, own in self.f.items():
            part, place = self._places(f, p)
            if natural:
                torch.mul(part, self.scale[p][place], out=own[place])
            else:
                own[place] = part

    def _unloaded(
        self, like: Float[Tensor, " batch *space"], natural: bool
    ) -> Float[Tensor, " batch *space"]:
        plain = torch.empty_like(like)
        for p, u in self.u.items():
            part, place = self._places(plain, p)
            if natural:
                torch.mul(u[place], self.scale[p][place], out=part)
            else:
                part.copy_(u[place])
        return plain


def neighbouring_colour(colour: Offset, displacement: Offset) -> tuple[Offset, Offset]:
    """Return the colour of the node at ``displacement``, and its offset among those of that colour."""
    place = added(colour, displacement)
    return tuple(n % 2 for n in place), tuple(n // 2 for n in place)


def prolongation(A: ColouredMatrix) -> Prolongation:
    """Return P, where a node between others averages those that are odd along one axis more of its even ones,
    weighted by its links with all that lies beside it on their side (Dendy 1986, doi:10.1137/0907046): X takes
    its two neighbours in the row, weighted by its links with their columns. Z is what makes its own
    residual vanish."""
    first, *between, last = colours(len(next(iter(A.excess))))
    weights: dict[Offset, Stencil] = {
        first: {(0,) * len(first): ringed(torch.ones_like(unringed(A.excess[first])))}
    }
    deficit = {first: torch.zeros_like(A.excess[first])}
    for p in (*between, last):
        links, out = A.links[p], A.excess[p]
        if p != last:
            # a link that the Galerkin product made negative does not say which side is nearer
            links, out = _collapsed(links, p), out.clamp(min=0)
        total = summed(out, *links.values())
        own = ringed(1 / unringed(total).clamp(min=torch.finfo(total.dtype).tiny))
        weights[p] = {}
        missing = out.clone()
        for d, link in links.items():
            q, o = neighbouring_colour(p, d)
            add_product(weights[p], {o: link * own}, weights[q])
            unringed(missing).addcmul_(unringed(link), neighbours(deficit[q], o))
        deficit[p] = missing * own
    return Prolongation(weights, deficit)


def _collapsed(links: Stencil, colour: Offset) -> Stencil:
    """Return the positive links, those that differ along odd axes alone summed."""
    beside: dict[Offset, list[Float[Tensor, " batch *space"]]] = {}
    for d, link in links.items():
        flat = tuple(o if parity == 0 else 0 for o, parity in zip(d, colour, strict=True))
        if any(flat):
            beside.setdefault(flat, []).append(link.clamp(min=0))
    return {d: summed(*parts) for d, parts in beside.items()}
