"""Fields on triangles, as finite elements leave them, brought to a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Real

from sobolev.grids.checks import whole_numbers


def scattered_to_grid(
    x: Real[np.ndarray, " node *sample"],
    y: Real[np.ndarray, " node *sample"],
    triangles: Int[np.ndarray, "triangle 3"],
    fields: Mapping[str, Real[np.ndarray, "node sample"]],
    *,
    nodes: Sequence[int] = (65, 65),
) -> xr.Dataset:
    """Return fields on evenly spaced nodes, linear on each triangle, and NaN where there is none.

    Domains may differ from sample to sample: nodes of the mesh may lie elsewhere in each. What comes out
    is what ``store_fields(..., mask="nan")`` takes.

    Args:
        x, y: coordinates of the mesh's nodes, for all samples or for each.
        triangles: the numbers of the nodes at their corners.
        fields: values at the mesh's nodes, by name.
        nodes: of the grid along y and x, from end to end of all meshes.

    Returns:
        The fields ``(sample, y, x)`` with their coordinates.

    Raises:
        ValueError: for fields or coordinates that do not fit the mesh.

    >>> corners = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    >>> square = np.array([[0, 1, 2], [0, 2, 3]])
    >>> found = scattered_to_grid(*corners, square, {"u": corners[0][:, None]}, nodes=(3, 5))
    >>> found.u[0, 1].values.round(6).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    # imported here: drawing is not needed to read data
    from matplotlib.tri import LinearTriInterpolator, Triangulation

    sizes = whole_numbers("scattered_to_grid", "nodes", list(nodes))
    counts = {name: values.shape for name, values in fields.items()}
    samples = {shape[1] for shape in counts.values()}
    if len(samples) != 1 or any(shape[0] != len(x) for shape in counts.values()):
        raise ValueError(
            f"the mesh has {len(x)} nodes; each field needs (node, sample) values there, got {counts}"
        )
    (count,) = samples
    every_x, every_y = (np.broadcast_to(np.atleast_2d(c.T).T, (len(x), count)) for c in (x, y))
    lines = [np.linspace(c.min(), c.max(), n) for c, n in ((y, sizes[0]), (x, sizes[1]))]
    # nodes on the border belong to the domain, whatever rounding says of theirs
    rows, columns = (_inward(points) for points in lines)
    across, up = np.meshgrid(columns, rows)
    found = {name: np.empty((count, *sizes)) for name in fields}
    for i in range(count):
        mesh = Triangulation(every_x[:, i], every_y[:, i], triangles)
        for name, values in fields.items():
            there = LinearTriInterpolator(mesh, values[:, i])(across, up)
            found[name][i] = there.filled(np.nan)
    return xr.Dataset(
        {name: (("sample", "y", "x"), values) for name, values in found.items()},
        {"y": lines[0], "x": lines[1]},
    )


def _inward(points: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    """Return nodes of which the ends are moved inward by rounding."""
    room = 1e-9 * (points[-1] - points[0])
    return points.clip(points[0] + room, points[-1] - room)
