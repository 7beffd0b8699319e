"""Darcy flow as the released FNO data were made, detours included."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class EllipticityWarning(UserWarning):
    """A permeability that was positive on the cells is not positive on the nodes."""


class PublishedDarcy:
    """−∇·(a ∇u) = f on the unit square, u = 0 on its border, as ``solve_gwf.m`` solves it
    (Li et al. 2021, data_generation/darcy of their repository).

    a and f are values at the centres (2i+1)/(2K) of K × K cells. Cubic splines carry both to the
    nodes i/(K−1), the outermost of them half a cell beyond the data; second-order differences with
    arithmetic means of a on the faces are solved there by sparse LU; a spline carries u back. The
    release transposes its solution twice (``vec2mat`` and a final ``'``), which leaves u aligned
    with a, as here.

    Use it to reproduce or continue the published files. For new data ``Darcy`` is the better
    problem: the spline overshoots where a jumps, so that two-phase media come out with negative
    permeability at some nodes (an ``EllipticityWarning`` says so), and u is not zero on the border
    of the array, whose outermost values lie half a cell inside.

    >>> a = torch.ones(1, 32, 32, dtype=torch.float64)
    >>> u = PublishedDarcy().solve(a)
    >>> u.shape, u.max().item() > 0.07, u[0, 0, 16].item() > 0.003
    (torch.Size([1, 32, 32]), True, True)
    """

    def solve(
        self, permeability: Float[Tensor, " ..."], forcing: float | Shaped[Tensor, " ..."] = 1.0
    ) -> Float[Tensor, "batch K K"]:
        """Return the pressure at the cell centres.

        Args:
            permeability: a > 0 on the cells, ``(batch, K, K)`` with K ≥ 4.
            forcing: f, a number or a tensor that broadcasts to ``(batch, K, K)``.

        Returns:
            ``(batch, K, K)``, computed in float64 on the CPU, returned in the dtype and on the
            device of ``permeability``.

        Raises:
            ValueError: for fields that are not square, too small, not positive or not finite.

        Warns:
            EllipticityWarning: if the splined coefficient is not positive everywhere.
        """
        _check_cells(permeability)
        f = torch.as_tensor(forcing, dtype=torch.float64, device="cpu")
        try:
            f = f.expand(permeability.shape)
        except RuntimeError:
            raise ValueError(
                f"the forcing of shape {tuple(f.shape)} does not broadcast to the fields' {tuple(permeability.shape)}"
            ) from None
        nodes = self.on_nodes(permeability.detach())
        _warn_of_lost_ellipticity(nodes)
        to_cells = _spline(permeability.shape[-1], to_nodes=False)
        solved = [
            to_cells @ _sparse_lu(a, rhs) @ to_cells.T
            for a, rhs in zip(nodes.numpy(), self.on_nodes(f).numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(solved)).to(permeability)

    @staticmethod
    def on_nodes(cells: Float[Tensor, "batch K K"]) -> Float[Tensor, "batch K K"]:
        """Return fields splined from cell centres to nodes, float64 on the CPU.

        Exact for polynomials of degree up to three in each direction.
        """
        matrix = torch.from_numpy(_spline(cells.shape[-1], to_nodes=True))
        return matrix @ cells.to("cpu", torch.float64) @ matrix.T


@functools.lru_cache(maxsize=16)
def _spline(cells: int, *, to_nodes: bool) -> np.ndarray:
    """Return the not-a-knot cubic spline from cell centres to nodes, or back, as a matrix."""
    # imported here, since scipy.interpolate takes longer than all the rest of the solvers
    from scipy.interpolate import make_interp_spline

    centres = (np.arange(cells) + 0.5) / cells
    nodes = np.linspace(0, 1, cells)
    here, there = (centres, nodes) if to_nodes else (nodes, centres)
    return make_interp_spline(here, np.eye(cells), k=3, bc_type="not-a-knot")(there)


def _sparse_lu(a: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Solve the five-point system on the nodes; a of either sign, hence no Cholesky and no iteration."""
    # imported here, since only this solver needs them
    import scipy.sparse
    import scipy.sparse.linalg

    n = a.shape[0] - 2
    south = (a[1:, 1:-1] + a[:-1, 1:-1]) / 2
    east = (a[1:-1, 1:] + a[1:-1, :-1]) / 2
    diagonal = south[1:] + south[:-1] + east[:, 1:] + east[:, :-1]
    beside = np.zeros((n, n))
    beside[:, :-1] = -east[:, 1:-1]
    beside = beside.ravel()[:-1]
    below = -south[1:-1].ravel()
    matrix = scipy.sparse.diags_array(
        [diagonal.ravel(), beside, beside, below, below], offsets=[0, 1, -1, n, -n], format="csc"
    )
    inside = scipy.sparse.linalg.splu(matrix).solve(f[1:-1, 1:-1].ravel() / (n + 1) ** 2)
    return np.pad(inside.reshape(n, n), 1)


def _warn_of_lost_ellipticity(nodes: Float[Tensor, "batch K K"]) -> None:
    least = nodes.amin(dim=(1, 2))
    bad = int((least <= 0).sum())
    if bad:
        warnings.warn(
            f"{bad} of {len(nodes)} permeabilities are not positive on the nodes after the published spline (least "
            f"value {float(least.min()):.3g}): the equation is not elliptic there and the pressure no physical one, "
            "as in the released files; Darcy solves without the spline",
            EllipticityWarning,
            stacklevel=3,
        )


def _check_cells(permeability: Float[Tensor, " ..."]) -> None:
    shape = tuple(permeability.shape)
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 4 or not shape[0]:
        raise ValueError(
            f"expected permeabilities of shape (batch, K, K) on at least 4 x 4 cells, got {shape}"
        )
    if permeability.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected a float32 or float64 tensor, got {permeability.dtype}")
    if not bool((permeability.isfinite() & (permeability > 0)).all()):
        raise ValueError("the permeability must be positive and finite on every cell")
