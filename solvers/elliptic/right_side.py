"""What is given of a Darcy problem beside its permeability, brought to the nodes of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.unknowns import Unknowns
from sobolev.solvers.inner_products import without_mean

Given = float | Shaped[Tensor, " ..."]
"""A number, or a tensor that broadcasts."""
Flux = Mapping[str, Sequence[Given]]
"""By the name of a Neumann axis a pair: the flow into the box through its lower and its upper wall."""
_BALANCED = 1e-6  # of the mean size: what rounding a forcing to float32 may leave


def on_nodes(
    value: Given, like: Float[Tensor, " batch *space"], what: str
) -> Float[Tensor, " batch *space"]:
    """Return a field on every node of every sample."""
    field = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    try:
        return field.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"the {what} of shape {tuple(field.shape)} does not broadcast to the fields' {tuple(like.shape)}"
        ) from None


def lifting(
    boundary: Given, grid: Grid, like: Float[Tensor, " batch *space"]
) -> Float[Tensor, " batch *space"] | None:
    """Return the field that has the boundary values on the Dirichlet walls and is zero elsewhere, or None if
    they are zero."""
    if not isinstance(boundary, Tensor) and boundary == 0:
        return None
    nodes = Unknowns(grid)
    if nodes.closed:
        raise ValueError(f"boundary values are those of Dirichlet axes, and there is none: {grid}")
    values = on_nodes(boundary, like, "boundary")
    return values - nodes.with_walls(nodes.inside(values))


def with_inflow(
    forcing: Float[Tensor, " batch *space"], flux: Flux | None, grid: Grid
) -> Float[Tensor, " batch *space"]:
    """Return the forcing with what flows in through Neumann walls: flux / spacing in the cells beside them."""
    for name, walls in (flux or {}).items():
        named = [axis for axis in grid.axes if axis.boundary == "neumann"]
        if name not in [axis.name for axis in named]:
            names = ", ".join(repr(axis.name) for axis in named)
            raise ValueError(
                f"a flux is given through walls of Neumann axes, {names or 'of which there is none'}; got {name!r}"
            )
        if not isinstance(walls, (tuple, list)) or len(walls) != 2:
            raise ValueError(
                f"the flux along {name!r} is a pair, through the lower and the upper wall; got {walls!r}"
            )
        dim = grid.dims.index(name) + 1
        axis = grid.axes[dim - 1]
        for value, rest in zip(walls, ([0, axis.size - 1], [axis.size - 1, 0]), strict=True):
            wall = on_nodes(value, forcing.select(dim, 0), f"flux along {name!r}")
            beside = wall.unsqueeze(dim) / axis.spacing
            forcing = forcing + pad(beside, [0, 0] * (forcing.ndim - 1 - dim) + rest)
    return forcing


def balanced(b: Float[Tensor, " batch *space"]) -> Float[Tensor, " batch *space"]:
    """Return the right side of a box without a Dirichlet wall, less the mean that rounding left.

    Raises:
        ValueError: for one that has a mean: what flows in has to flow out.
    """
    mean = b.detach().flatten(1).mean(1)
    size = b.detach().flatten(1).abs().mean(1)
    off = mean.abs() > _BALANCED * size
    if bool(off.any()):
        first = int(off.nonzero()[0, 0])
        raise ValueError(
            "without a Dirichlet wall, what flows in must flow out: the forcing, and the flux through the walls over "
            f"the length of the box, must have mean zero. {int(off.sum())} of {len(off)} samples have not; the first "
            f"is number {first}, of mean {float(mean[first]):.3g} and mean size {float(size[first]):.3g}: subtract it, "
            "or make an axis a Dirichlet one"
        )
    return without_mean(b)
