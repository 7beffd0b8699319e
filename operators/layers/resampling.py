"""Fields on another grid, before an operator is applied to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.axis import BOUNDARIES, Axis
from sobolev.grids.grid import Grid


def resampled(
    u: Float[Tensor, "*batch_space"], size: Sequence[int] | None, boundary: Sequence[str]
) -> Float[Tensor, "*batch_size"]:
    """Return the fields on a grid of ``size`` nodes; ``u`` itself where ``size`` is None or its own.

    Where all axes are periodic by the Fourier series, which is exact for what the input grid
    resolves; else linearly, axis by axis. In half precision, too, the work is done in float32.

    Raises:
        ValueError: if ``size`` does not name one number per axis.
    """
    space = u.shape[-len(boundary) :]
    if size is None:
        return u
    if not isinstance(size, (list, tuple)) or len(size) != len(boundary):
        raise ValueError(f"size needs {len(boundary)} entries, one per axis; got {size!r}")
    if tuple(size) == tuple(space):
        return u
    v = u if u.dtype == torch.float64 else u.float()
    axes = [
        Axis(f"axis {i}", n, boundary=b)
        for i, (n, b) in enumerate(zip(space, boundary, strict=True))
    ]
    if all(b == "periodic" for b in boundary):
        grid = Grid(*axes)
        return grid.resample(v, grid.resized(*size)).to(u.dtype)
    for i, (axis, n) in enumerate(zip(axes, size, strict=True), u.ndim - len(axes)):
        v = _linear(v.movedim(i, -1), axis, n).movedim(-1, i)
    return v.to(u.dtype)


def boundaries(kinds: str | Sequence[str], ndim: int) -> list[str]:
    """Return one boundary kind per axis.

    Raises:
        ValueError: for an unknown kind or a wrong number of them.
    """
    each = [kinds] * ndim if isinstance(kinds, str) else list(kinds)
    if len(each) != ndim or not set(each) <= set(BOUNDARIES):
        raise ValueError(
            f"boundary needs one of {', '.join(BOUNDARIES)} per axis ({ndim}), got {each}"
        )
    return each


def _linear(u: Float[Tensor, "*others n"], axis: Axis, size: int) -> Float[Tensor, "*others m"]:
    """Interpolate linearly along the last axis, periodic or held constant beyond the outer cell
    centres."""
    target = Axis(axis.name, size, boundary=axis.boundary).points(u.device)
    position = (target - axis.points(u.device)[0]) / axis.spacing
    left = position.floor()
    weight = (position - left).to(u.dtype)
    index = left.long()
    if axis.boundary == "periodic":
        return torch.lerp(u[..., index % axis.size], u[..., (index + 1) % axis.size], weight)
    last = axis.size - 1
    return torch.lerp(u[..., index.clamp(0, last)], u[..., (index + 1).clamp(0, last)], weight)
