"""Semilinear equations u_t = L u + N(u): what one has to say of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sobolev.solvers.spaces import Field, InModes, Space


class Semilinear(ABC):
    """u_t = L u + N(u) on periodic boxes, boxes with walls and the sphere: two hooks say all.

    L is a function of −Δ, whose eigenvalues each grid knows; N is pointwise, with the derivatives that
    ``Space`` has. ``integrate`` solves it, and differentiates through the solution.

    >>> class FisherKPP(Semilinear):                              # u_t = D Δu + r u (1 − u)
    ...     def symbol(self, eigenvalues):
    ...         return 1.0 - 0.01 * eigenvalues
    ...     def nonlinear(self, u, space):
    ...         return -u**2
    >>> from sobolev.grids import Grid
    >>> from sobolev.solvers import integrate
    >>> u = integrate(FisherKPP(), torch.full((1, 32), 0.5), Grid.neumann(32), 1.0)
    >>> torch.allclose(u, torch.ones(()).neg().exp().add(1).reciprocal().expand(1, 32))
    True
    """

    is_linear = False
    """True says that ``nonlinear`` vanishes, so that solutions are exact. An equation without it is linear anyway."""
    channels: tuple[str, ...] = ()
    """Names of several fields that are solved for at once, ``(batch, channels, *space)``; none for a
    single one, ``(batch, *space)``."""

    @abstractmethod
    def symbol(
        self, eigenvalues: Float[Tensor, "*modes"]
    ) -> Inexact[Tensor, "*channels_and_modes"]:
        """Return L on the modes whose eigenvalues of −Δ these are.

        One number for each mode; of several channels one for each, ``(channels, *modes)``, or a matrix
        between them, ``(channels, channels, *modes)``.
        """

    def dispersion(self, *wavenumbers: Float[Tensor, " ..."]) -> Float[Tensor, "*modes"] | None:
        """Return the imaginary part of the symbol, an odd function of the wavenumbers along each axis, for
        derivatives of odd order; None if there are none. It needs periodic axes.

        u_t = −c u_x has −c k, u_t = −δ u_xxx has δ k³.
        """
        return None

    def nonlinear(self, state: Field, space: Space) -> Field | InModes | None:
        """Return N(u) at the nodes, of the shape of ``state``, or by its modes, as ``space.divergence``
        and ``space.laplacian`` give it; None for a linear equation, which is solved exactly.

        ``state`` may be a part of the batch, so that it stays in a CPU's cache. What differs between
        samples belongs in an attribute of the equation, a tensor with a batch axis before those of space:
        the batch is then kept whole.
        """
        return None


def is_linear(equation: Semilinear) -> bool:
    """Return whether an equation has no nonlinear term."""
    return type(equation).nonlinear is Semilinear.nonlinear or equation.is_linear


def symbol_on(equation: Semilinear, space: Space) -> Inexact[Tensor, "*channels_and_modes"]:
    """Return L on the modes of a space.

    Raises:
        ValueError: for a symbol of another shape, one that grows without bound, and odd derivatives
            where the basis has none.
    """
    eigenvalues = space.eigenvalues
    found = equation.symbol(eigenvalues)
    found = found if found.is_complex() else found.double()
    count = len(equation.channels)
    shapes = [(count,), (count, count)] if count else [()]
    if found.shape == eigenvalues.shape and count:
        found = found.expand(count, *eigenvalues.shape)
    if found.shape not in [(*shape, *eigenvalues.shape) for shape in shapes]:
        wanted = " or ".join(str((*shape, *eigenvalues.shape)) for shape in shapes)
        raise ValueError(
            f"{type(equation).__name__}.symbol needs the shape {wanted} for {count or 1} channels here, got "
            f"{tuple(found.shape)}"
        )
    if not bool(found.detach().isfinite().all()):
        raise ValueError(f"{type(equation).__name__}.symbol is not finite on all modes")
    if type(equation).dispersion is not Semilinear.dispersion:
        odd = equation.dispersion(*space.wavenumbers())
        if odd is not None:
            found = found + 1j * _on_the_diagonal(odd.double().expand(eigenvalues.shape), found)
    if found.is_complex() and not space.has_complex_modes:
        raise ValueError(
            f"{type(equation).__name__}.symbol is complex, and the eigenfunctions of {space.grid} are real; two "
            "channels and a matrix between them say the same"
        )
    _check_bounded(equation, found.detach(), eigenvalues, count)
    return found


def _on_the_diagonal(
    values: Float[Tensor, "*modes"], symbol: Inexact[Tensor, "*channels_and_modes"]
) -> Float[Tensor, "*channels_and_modes"]:
    """Return values that are the same for every channel, as a symbol of this shape has them."""
    if symbol.ndim < values.ndim + 2:
        return values
    one = torch.eye(len(symbol), dtype=values.dtype, device=values.device)
    return one.reshape(*one.shape, *[1] * values.ndim) * values


def _check_bounded(
    equation: Semilinear,
    symbol: Inexact[Tensor, "*channels_and_modes"],
    eigenvalues: Float[Tensor, "*modes"],
    count: int,
) -> None:
    """Refuse an equation whose smallest scales grow fastest, and the faster the smaller they are."""
    flat = eigenvalues.flatten()
    top, middle = flat.argmax(), (flat - flat.max() / 2).abs().argmin()
    # eigenvalues of two small matrices, which a GPU would take longer for than the CPU
    both = symbol.flatten(-eigenvalues.ndim)[..., torch.stack([top, middle])].cpu()
    if symbol.ndim == eigenvalues.ndim + 2 and count:
        growth = torch.linalg.eigvals(both.movedim(-1, 0)).real.amax(-1)
    else:
        growth = both.real.reshape(-1, 2).amax(0)
    fastest, slower = growth.tolist()
    rounding = 1e-9 * max(1.0, float(symbol.abs().max()))
    if fastest > slower + rounding and fastest > rounding:
        raise ValueError(
            f"{type(equation).__name__} is not well-posed: its mode with the wavenumber "
            f"{float(flat[top].sqrt()):.4g} grows at the rate {fastest:.3g}, and finer ones faster still; "
            "check the sign of its symbol, whose argument is the eigenvalue of −Δ"
        )
