"""Multigrid for flow through porous media of any contrast.

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

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid

Offset = tuple[int, int]
Stencil = dict[Offset, Tensor]
"""Offset → weight of the neighbour there, arrays with a ring of zeros around them."""
Terms = list[tuple[Tensor, Tensor]]
"""Weights beside views of what they weigh."""

_C, _X, _Y, _Z = _COLOURS = ((1, 1), (1, 0), (0, 1), (0, 0))  # (row, column) modulo 2
_FORWARD = ((0, 1), (1, 0), (1, 1), (1, -1))  # the other four follow by symmetry
_COARSEST = 200  # so many unknowns go to a dense matrix


class Stiffness:
    """The five-point matrix of −∇·(a ∇·) on the inner nodes, as an action on ``(batch, y, x)``.

    Fluxes are a times differences of u: where a is large u is nearly constant, and the product keeps
    its digits, which an assembled diagonal would not.
    """

    def __init__(self, a: Tensor, grid: Grid) -> None:
        self.spacings = hy, hx = tuple(axis.spacing for axis in grid.axes)
        self.north_south = (a[:, 1:, 1:-1] + a[:, :-1, 1:-1]) / (2 * hy**2)
        self.west_east = (a[:, 1:-1, 1:] + a[:, 1:-1, :-1]) / (2 * hx**2)

    def __call__(self, u: Tensor) -> Tensor:
        u = pad(u, (1, 1, 1, 1))
        south = (u[:, :-1, 1:-1] - u[:, 1:, 1:-1]) * self.north_south
        east = (u[:, 1:-1, :-1] - u[:, 1:-1, 1:]) * self.west_east
        return (south[:, 1:] - south[:, :-1]).add_(east[..., 1:]).sub_(east[..., :-1])

    def least_face(self) -> Tensor:
        """The least coefficient of a face, ``(batch,)``: A ≥ least · (−Δ_h)."""
        hy, hx = self.spacings
        faces = (
            self.north_south.flatten(1).amin(1) * hy**2,
            self.west_east.flatten(1).amin(1) * hx**2,
        )
        return torch.minimum(*faces)

    def rounding(self, u: Tensor) -> Tensor:
        """ε |A| |u|, by how much A u may change at each node when ``u`` is rounded."""
        u = pad(u.abs(), (1, 1, 1, 1))
        south = (u[:, 1:, 1:-1] + u[:, :-1, 1:-1]) * self.north_south
        east = (u[:, 1:-1, 1:] + u[:, 1:-1, :-1]) * self.west_east
        total = south[:, 1:] + south[:, :-1] + east[..., 1:] + east[..., :-1]
        return torch.finfo(u.dtype).eps * total

    def links(self) -> tuple[Stencil, Tensor]:
        """Links between inner nodes by displacement, and the excess: the links to the border."""
        north, south = self.north_south[:, :-1].clone(), self.north_south[:, 1:].clone()
        west, east = self.west_east[..., :-1].clone(), self.west_east[..., 1:].clone()
        excess = torch.zeros_like(north)
        for border, link in (
            ((slice(None), 0), north),
            ((slice(None), -1), south),
            ((..., 0), west),
            ((..., -1), east),
        ):
            excess[border] += link[border]
            link[border] = 0
        return {(-1, 0): north, (1, 0): south, (0, -1): west, (0, 1): east}, excess


class Multigrid:
    """A symmetric positive definite approximation of A⁻¹ for A = −∇·(a ∇·) on five points.

    One V-cycle of black-box multigrid (Alcouffe, Brandt, Dendy & Painter 1981; Dendy 1982,
    doi:10.1016/0021-9991(82)90057-2): interpolation that keeps the flux continuous where a jumps,
    its transpose as restriction, Galerkin nine-point matrices, a sweep of Gauss–Seidel in four
    colours on the way down and one in the opposite order on the way up, dense Cholesky on the
    coarsest grid. Grids of any size are halved, odd or even; cells should be about square, since
    relaxing nodes one by one does little along the long side of a flat cell.

    Made to precondition conjugate gradients, which ``Darcy`` does; ``solve`` iterates it alone. A
    cycle works in arrays that the object keeps: use it in one thread at a time.

    Args:
        permeability: a > 0 on the nodes, ``(batch, y, x)``.
        grid: two Dirichlet axes.
        dtype: of the cycle; its matrices are made in float64 all the same. float32 takes half the
            memory and preconditions as well up to contrasts of about 1e4.

    Raises:
        ValueError: for a coefficient that is not positive and finite, or a grid that does not fit.
        ArithmeticError: if the contrast is beyond what float64 tells apart.

    >>> grid = Grid.dirichlet(50, 34)
    >>> a = torch.ones(1, 50, 34, dtype=torch.float64)
    >>> u = Multigrid(a, grid).solve(torch.ones_like(a))
    >>> (Stiffness(a, grid)(u[:, 1:-1, 1:-1]) - 1).abs().max().item() < 1e-6
    True
    """

    def __init__(
        self, permeability: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float64
    ) -> None:
        check_permeability(permeability, grid)
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"a cycle runs in torch.float32 or torch.float64, got dtype={dtype}")
        self.grid, self.dtype = grid, dtype
        self.stiffness = Stiffness(permeability.detach().double(), grid)
        links, excess = self.stiffness.links()
        self.shape = excess.shape
        self.levels: list[_Level] = []
        while excess[0].numel() > _COARSEST:
            self.levels.append(_Level(links, excess, dtype))
            links, excess = self.levels[-1].coarser
        self.inverse = _dense_inverse(links, excess, scaled=bool(self.levels)).to(dtype)

    @torch.no_grad()
    def __call__(self, residual: Tensor) -> Tensor:
        """One cycle from zero, float64: from inner nodes ``(batch, y, x)`` to the same."""
        if residual.shape != self.shape:
            raise ValueError(
                f"expected residuals on the inner nodes, {tuple(self.shape)}, got {tuple(residual.shape)}"
            )
        if self.dtype == residual.dtype:
            return self._descend(residual, 0)
        # scaled, so that small residuals stay within float32's range; a residual of zero stays zero
        scale = residual.abs().amax(dim=(1, 2), keepdim=True)
        scale = scale.clamp(min=torch.finfo(residual.dtype).tiny)
        return self._descend((residual / scale).to(self.dtype), 0).to(residual.dtype) * scale

    @torch.no_grad()
    def cycle(self, pressure: Tensor, forcing: Tensor) -> Tensor:
        """The pressure after one more cycle, all fields ``(batch, y, x)`` on all nodes, float64."""
        u, f = (t[:, 1:-1, 1:-1].double() for t in (pressure, forcing))
        return pad(u + self(f - self.stiffness(u)), (1, 1, 1, 1))

    @torch.no_grad()
    def solve(
        self, forcing: Tensor, *, tolerance: float = 1e-8, max_iterations: int = 100
    ) -> Tensor:
        """Cycles until ‖f − A u‖ ≤ tolerance ‖f‖ for every sample: ``(batch, y, x)``, float64.

        Raises:
            ArithmeticError: if ``max_iterations`` cycles do not reach it, as at contrasts where
                only conjugate gradients converge fast.
        """
        self.grid.check(forcing)
        f = forcing.double()
        u = torch.zeros_like(f)
        inner = f[:, 1:-1, 1:-1]
        for _ in range(max_iterations + 1):
            left = norm(inner - self.stiffness(u[:, 1:-1, 1:-1]))
            if bool((left <= tolerance * norm(inner)).all()):
                return u
            u = self.cycle(u, f)
        raise ArithmeticError(
            f"multigrid alone left a relative residual of {float((left / norm(inner)).max()):.1e} after "
            f"{max_iterations} cycles, wanted {tolerance:.1e}: solve with Darcy(preconditioner='multigrid'), "
            "which accelerates the cycles by conjugate gradients"
        )

    def _descend(self, f: Tensor, depth: int) -> Tensor:
        if depth == len(self.levels):
            return (self.inverse @ f.flatten(1)[..., None]).view(f.shape)
        level = self.levels[depth]
        return level.cycle(f, lambda g: self._descend(g, depth + 1), natural=depth == 0)


def norm(u: Tensor) -> Tensor:
    """The Euclidean norm of each sample."""
    return u.flatten(1).norm(dim=1)


def check_permeability(permeability: Tensor, grid: Grid) -> None:
    """Refuse what is no batch of positive fields on a grid of two Dirichlet axes."""
    if grid.ndim != 2 or any(axis.boundary != "dirichlet" for axis in grid.axes):
        raise ValueError(
            f"Darcy is solved on two Dirichlet axes (Grid.dirichlet(ny, nx)), got {grid}"
        )
    grid.check(permeability)
    if permeability.ndim != 3 or not len(permeability):
        raise ValueError(
            f"expected permeabilities of shape (batch, y, x), got {tuple(permeability.shape)}"
        )
    good = (permeability.isfinite() & (permeability > 0)).flatten(1).all(dim=1)
    if not bool(good.all()):
        first = int((~good).nonzero()[0, 0])
        raise ValueError(
            f"the permeability must be positive and finite; {int((~good).sum())} of {len(good)} fields are not, the "
            f"first is number {first} (least value {float(permeability[first].min()):.3g})"
        )


def _ring(t: Tensor) -> Tensor:
    return pad(t, (1, 1, 1, 1))


def _at(t: Tensor, offset: Offset) -> Tensor:
    """A view of a ringed array: the neighbour at ``offset`` of every node."""
    (batch, rows, columns), (down, right) = t.shape, t.stride()[1:]
    start = t.storage_offset() + (1 + offset[0]) * down + (1 + offset[1]) * right
    return t.as_strided((batch, rows - 2, columns - 2), t.stride(), start)


def _total(first: Tensor, *others: Tensor) -> Tensor:
    total = first.clone()
    for t in others:
        total += t
    return total


def _inside(t: Tensor) -> Tensor:
    return _at(t, (0, 0))


def _neighbour(colour: Offset, displacement: Offset) -> tuple[Offset, Offset]:
    """The colour of the node at ``displacement``, and its offset among those of that colour."""
    y, x = colour[0] + displacement[0], colour[1] + displacement[1]
    return (y % 2, x % 2), (y // 2, x // 2)


def _add_product(
    out: Stencil, S: Stencil, T: Stencil, *, sign: int = 1, only: Collection[Offset] = ()
) -> None:
    """out ± S T, for stencils between colours; only the offsets in ``only``, if any."""
    for (y, x), s in S.items():
        for (v, u), t in T.items():
            to = (y + v, x + u)
            if only and to not in only:
                continue
            if to not in out:
                out[to] = torch.zeros_like(s)
            _inside(out[to]).addcmul_(_inside(s), _at(t, (y, x)), value=sign)


def _transposed(S: Stencil) -> Stencil:
    return {(-y, -x): _ring(_at(s, (-y, -x))) for (y, x), s in S.items()}


@dataclass(frozen=True)
class _Matrix:
    """A nine-point matrix by the colour of its rows, all arrays ringed."""

    links: dict[Offset, Stencil]
    excess: dict[Offset, Tensor]
    diagonal: dict[Offset, Tensor]


@dataclass(frozen=True)
class _Prolongation:
    """P by the colour that receives, from C to each; and δ = 1 − P 1, free of cancellation."""

    weights: dict[Offset, Stencil]
    deficit: dict[Offset, Tensor]


class _Level:
    """A matrix, the interpolation from the next coarser grid, and the cycle.

    Both are scaled so that the diagonal is one: relaxing is then no division, and float32 meets no
    number far from one.
    """

    def __init__(self, links: Stencil, excess: Tensor, dtype: torch.dtype) -> None:
        rows, columns = excess.shape[1:]
        # a line of nodes one wide must live on below: it is shifted to an odd place
        self.front = (int(rows == 1), int(columns == 1))
        self.inner = ((rows + self.front[0]) // 2, (columns + self.front[1]) // 2)
        A = self._split_matrix(links, excess)
        P = _prolongation(A)
        self.coarser = self._galerkin(A, P)
        self._scale(A, P, dtype)

    def _split_matrix(self, links: Stencil, excess: Tensor) -> _Matrix:
        parts = {d: self._split(link) for d, link in links.items()}
        n = {p: {d: part[p] for d, part in parts.items()} for p in _COLOURS}
        sigma = self._split(excess, fill=1.0)  # nodes that only fill up are unknowns of their own
        return _Matrix(n, sigma, {p: _total(sigma[p], *n[p].values()) for p in _COLOURS})

    def _split(self, t: Tensor, fill: float = 0.0) -> dict[Offset, Tensor]:
        (fy, fx), (rows, columns) = self.front, t.shape[1:]
        t = pad(t, (fx, (columns + fx) % 2, fy, (rows + fy) % 2), value=fill)
        return {p: _ring(t[:, p[0] :: 2, p[1] :: 2]) for p in _COLOURS}

    def _galerkin(self, A: _Matrix, P: _Prolongation) -> tuple[Stencil, Tensor]:
        """Links and excess of Pᵀ A P. Rows Z of A P vanish; its sums are σ(1 − δ) − Σ n (δ − δ')."""
        matrix: Stencil = {}
        excess = torch.zeros_like(_inside(A.excess[_C]))
        for p in (_C, _X, _Y):
            product = {o: A.diagonal[p] * w for o, w in P.weights[p].items()}
            sums = A.excess[p] * (1 - P.deficit[p])
            for d, link in A.links[p].items():
                q, o = _neighbour(p, d)
                _add_product(product, {o: link}, P.weights[q], sign=-1)
                jump = _inside(P.deficit[p]) - _at(P.deficit[q], o)
                _inside(sums).addcmul_(_inside(link), jump, value=-1)
            restriction = _transposed(P.weights[p])
            _add_product(matrix, restriction, product, only=_FORWARD)
            for o, w in restriction.items():
                excess.addcmul_(_inside(w), _at(sums, o))
        rows, columns = self.inner
        links = {}
        for y, x in _FORWARD:
            links[y, x] = -_inside(matrix[y, x])[:, :rows, :columns]
            links[-y, -x] = -_at(matrix[y, x], (-y, -x))[:, :rows, :columns]
        return links, excess[:, :rows, :columns]

    def _scale(self, A: _Matrix, P: _Prolongation, dtype: torch.dtype) -> None:
        """The scaled weights in the cycle's dtype, each beside a view of what it weighs."""
        root = {p: _ring(_inside(d).rsqrt()) for p, d in A.diagonal.items()}
        links, excess = self.coarser
        below = _ring(torch.ones_like(_inside(root[_C])))
        rows, columns = self.inner
        below[:, 1 : rows + 1, 1 : columns + 1] = _total(excess, *links.values()).rsqrt()

        self.scale = {p: _inside(r).to(dtype) for p, r in root.items()}
        self.f = {p: torch.zeros_like(s) for p, s in self.scale.items()}
        self.u = {p: _ring(f) for p, f in self.f.items()}
        self.r = {p: torch.zeros_like(self.u[p]) for p in (_X, _Y)}
        self.e = torch.zeros_like(self.u[_C])
        self.earlier: dict[Offset, Terms] = {p: [] for p in _COLOURS}
        self.later: dict[Offset, Terms] = {p: [] for p in _COLOURS}
        for p in _COLOURS:
            for d, link in A.links[p].items():
                q, o = _neighbour(p, d)
                weight = (_inside(link) * _inside(root[p]) * _at(root[q], o)).to(dtype)
                before = _COLOURS.index(q) < _COLOURS.index(p)
                (self.earlier if before else self.later)[p].append((weight, _at(self.u[q], o)))
        self.same = (_inside(below) / _inside(root[_C])).to(dtype)
        self.up: dict[Offset, Terms] = {}
        self.down: Terms = []
        for p in (_X, _Y):
            weights = {
                o: _ring(_inside(w) / _inside(root[p]) * _at(below, o)).to(dtype)
                for o, w in P.weights[p].items()
            }
            self.up[p] = [(_inside(w), _at(self.e, o)) for o, w in weights.items()]
            self.down += [(_inside(w), _at(self.r[p], o)) for o, w in _transposed(weights).items()]

    def cycle(self, f: Tensor, coarse: Callable[[Tensor], Tensor], *, natural: bool) -> Tensor:
        """Approximately A⁻¹ f; ``natural``: both in natural units, not scaled ones."""
        self._load(f, natural)
        for p in _COLOURS:  # from zero: only the colours already relaxed enter
            self._relax(p, self.earlier[p])
        self._correct(coarse(self._restricted()))
        for p in reversed(_COLOURS):
            self._relax(p, self.later[p] + self.earlier[p])
        return self._unloaded(f, natural)

    def _relax(self, p: Offset, terms: Terms) -> None:
        u = _inside(self.u[p])
        u.copy_(self.f[p])
        for weight, neighbour in terms:
            u.addcmul_(weight, neighbour)

    def _restricted(self) -> Tensor:
        """Pᵀ r after the sweep from zero: r is what came later, and vanishes in Z."""
        residual = {_C: torch.zeros_like(self.f[_C])}
        residual |= {p: _inside(r).zero_() for p, r in self.r.items()}
        for p, r in residual.items():
            for weight, neighbour in self.later[p]:
                r.addcmul_(weight, neighbour)
        total = residual[_C].mul_(self.same)
        for weight, r in self.down:
            total.addcmul_(weight, r)
        rows, columns = self.inner
        return total[:, :rows, :columns]

    def _correct(self, e: Tensor) -> None:
        """u += P e, but for Z, which the sweep that follows computes anew."""
        rows, columns = self.inner
        self.e[:, 1 : rows + 1, 1 : columns + 1] = e
        _inside(self.u[_C]).addcmul_(self.same, _inside(self.e))
        for p, terms in self.up.items():
            for weight, neighbour in terms:
                _inside(self.u[p]).addcmul_(weight, neighbour)

    def _places(self, f: Tensor, p: Offset) -> tuple[Tensor, tuple[slice, ...]]:
        """The nodes of colour p in a plain array, and where they lie in the colour's own."""
        (py, px), (fy, fx) = p, self.front
        part = f[:, (py + fy) % 2 :: 2, (px + fx) % 2 :: 2]
        y, x = int(fy > py), int(fx > px)
        return part, (slice(None), slice(y, y + part.shape[1]), slice(x, x + part.shape[2]))

    def _load(self, f: Tensor, natural: bool) -> None:
        for p, own in self.f.items():
            part, place = self._places(f, p)
            own[place] = part
            if natural:
                own.mul_(self.scale[p])

    def _unloaded(self, like: Tensor, natural: bool) -> Tensor:
        plain = torch.empty_like(like)
        for p, u in self.u.items():
            part, place = self._places(plain, p)
            part.copy_((_inside(u) * self.scale[p] if natural else _inside(u))[place])
        return plain


def _prolongation(A: _Matrix) -> _Prolongation:
    """X averages its two neighbours in the row, weighted by its links with their columns; Y likewise
    in the column; Z is what makes its own residual vanish."""
    n, sigma = A.links, A.excess
    tiny = torch.finfo(sigma[_C].dtype).tiny
    weights: dict[Offset, Stencil] = {_C: {(0, 0): _ring(torch.ones_like(_inside(sigma[_C])))}}
    deficit = {_C: torch.zeros_like(sigma[_C])}
    for p, axis, before in ((_X, 1, (0, -1)), (_Y, 0, (-1, 0))):
        # a link that the Galerkin product made negative does not say which side is nearer
        left, right = (
            _total(*(w.clamp(min=0) for d, w in n[p].items() if d[axis] == side))
            for side in (-1, 1)
        )
        out = sigma[p].clamp(min=0)
        total = (left + right + out).clamp(min=tiny)
        weights[p] = {before: left / total, (0, 0): right / total}
        deficit[p] = out / total
    weights[_Z], missing = {}, sigma[_Z].clone()
    own = _ring(1 / _inside(A.diagonal[_Z]))
    for d, link in n[_Z].items():
        q, o = _neighbour(_Z, d)
        _add_product(weights[_Z], {o: link * own}, weights[q])
        _inside(missing).addcmul_(_inside(link), _at(deficit[q], o))
    deficit[_Z] = missing * own
    return _Prolongation(weights, deficit)


def _dense_inverse(links: Stencil, excess: Tensor, *, scaled: bool) -> Tensor:
    """The inverse of the coarsest matrix, ``(batch, unknown, unknown)``."""
    diagonal = _total(excess, *links.values())
    rows, columns = diagonal.shape[1:]
    number = torch.arange(rows * columns, device=excess.device).view(rows, columns)
    ringed = pad(number[None], (1, 1, 1, 1), value=-1)
    matrix = torch.diag_embed(diagonal.flatten(1))
    for d, link in links.items():
        neighbour = _at(ringed, d)[0]
        there = neighbour >= 0
        matrix[:, number[there], neighbour[there]] = -link[:, there]
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed.any()) or not bool(factor.isfinite().all()):
        raise ArithmeticError(
            "the coarse matrices of the multigrid are not positive definite in float64: the contrast of the "
            "permeability is too high; bound it below, or solve by a sparse direct method"
        )
    inverse = torch.cholesky_inverse(factor)
    if scaled:
        root = diagonal.flatten(1).sqrt()
        inverse = inverse * root[:, :, None] * root[:, None, :]
    return inverse
