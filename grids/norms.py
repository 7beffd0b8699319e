"""Sobolev norms of any real order, and the spectrum they weigh."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import AbstractGrid


def sobolev_norm(
    u: Float[Tensor, "*batch_and_space"], grid: AbstractGrid, order: float = 0.0
) -> Float[Tensor, "*batch"]:
    """Return ‖u‖_{H^s} = (Σ_k (1 + λ_k)^s |û_k|²)^½, with λ_k the eigenvalues of −Δ on ``grid``.

    Args:
        u: fields, ``(..., *grid.shape)``.
        grid: fixes lengths and boundary conditions; wavenumbers are physical (2πk/L, πk/L).
        order: s, any real number. 0 is the L² integral, 1 the energy norm (‖u‖² + ‖∇u‖²)^½, −1 its
            dual.

    On a Dirichlet axis the field is taken to vanish at both ends: border values do not count.

    Returns:
        One norm per field, shape ``(...)``, differentiable (with gradient 0 at u = 0).

    >>> import math
    >>> from sobolev.solvers import Grid
    >>> grid = Grid.periodic(32, length=2 * math.pi)
    >>> u = torch.cos(3 * grid.points()[0])                       # ∫ cos² = π and 1 + λ = 10
    >>> round((sobolev_norm(u, grid, order=1.0) ** 2 / math.pi).item(), 12)
    10.0
    """
    if not math.isfinite(order):
        raise ValueError(f"the order of a Sobolev norm is a real number, got {order}")
    weight = (1 + grid.eigenvalues(u.device)) ** (order / 2)
    weighted = grid.to_modes(u) * weight.to(u.dtype)
    return torch.linalg.vector_norm(weighted, dim=tuple(range(-len(grid.mode_shape), 0)))


def energy_spectrum(
    u: Float[Tensor, "*batch_and_space"], grid: AbstractGrid
) -> tuple[Float[Tensor, " shell"], Float[Tensor, "*batch shell"]]:
    """Return the wavenumbers of the shells, and the energy Σ|û_k|² in each.

    Shells are as wide as the smallest wavenumber of the grid and centred on its multiples; on a
    sphere each degree l is a shell, with wavenumber √(l(l+1))/r. Their energies sum to ‖u‖²_{L²}.
    """
    wavenumbers, shell = grid.shells(u.device)
    energy = grid.to_modes(u).square().flatten(-len(grid.mode_shape))
    binned = torch.zeros(
        (*energy.shape[:-1], len(wavenumbers)), dtype=u.dtype, device=u.device
    ).index_add_(-1, shell, energy)
    return wavenumbers, binned


def relative_error(
    prediction: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    grid: AbstractGrid,
    order: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Return ‖p − y‖_{H^s} / ‖y‖_{H^s} per sample, the norm taken over all channels (and frames).

    For s = 0 on a periodic or Dirichlet grid this is the relative L² error of the FNO paper. There
    is no hidden ε: nothing is relative to a target of zero, whose error is NaN (``ratio``).
    """
    error = norm_per_sample(prediction - target, grid, order)
    return ratio(error, norm_per_sample(target, grid, order))


def ratio(error: Float[Tensor, "*batch"], size: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return ``error / size``: NaN where there is no size to be relative to, and infinite where the
    error is not finite, as that of a prediction that blew up.

    >>> ratio(torch.tensor([1.0, 1.0, torch.nan]), torch.tensor([2.0, 0.0, 2.0]))
    tensor([0.5000,    nan,    inf])
    """
    lost = ~error.isfinite()
    return torch.where(lost, torch.inf, error / torch.where(size == 0, torch.nan, size))


def known(values: Float[Tensor, " n"]) -> Float[Tensor, " known"]:
    """Return the values that there are: those of samples that have none are NaN."""
    return values[~values.isnan()]


def norm_per_sample(
    u: Float[Tensor, "batch ..."], grid: AbstractGrid, order: float = 0.0
) -> Float[Tensor, " batch"]:
    """Return the H^s norm of each sample, taken over its channels (and frames) together, if it has any."""
    return (
        sobolev_norm(u, grid, order).flatten(1).norm(dim=1)
        if u.ndim > grid.ndim + 1
        else sobolev_norm(u, grid, order)
    )
