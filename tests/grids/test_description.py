"""A grid comes back from JSON and from the coordinates of a data set."""

from __future__ import annotations

import json

import pytest
import torch
import xarray as xr

from sobolev import Axis, Grid, SphereGrid
from sobolev.grids.description import axis_coords, describe_grid, grid_from, grid_of, in_words

GRIDS = [
    Grid.periodic(8, length=2.5, origin=-1.0),
    Grid.periodic(8, 4),
    Grid.dirichlet(5, 9),
    Grid.neumann(4, 6, 8, length=(1.0, 2.0, 3.0)),
    Grid(Axis("y", 5, boundary="dirichlet"), Axis("x", 8, length=0.1)),
    SphereGrid(8, 16),
    SphereGrid(9, 12, "equiangular", radius=6.37122e6),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_grid_comes_back_from_json(grid):
    assert grid_from(json.loads(json.dumps(describe_grid(grid)))) == grid


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_grid_comes_back_from_its_coordinates_at_their_sizes(grid):
    sizes = [2 * n - 1 for n in grid.shape]
    dataset = xr.Dataset(coords=axis_coords(grid.resized(*sizes)))
    assert grid_of(dataset, grid) == grid.resized(*sizes)


def test_nodes_that_lie_elsewhere_are_refused():
    dataset = xr.Dataset(coords=axis_coords(Grid.periodic(8, length=2.0)))
    with pytest.raises(ValueError, match=r"expected evenly spaced nodes from 0 to 0.875"):
        grid_of(dataset, Grid.periodic(8))
    with pytest.raises(ValueError, match="no coordinate 'y'"):
        grid_of(dataset, Grid.periodic(8, 8))


@pytest.mark.parametrize(
    ("grid", "whole", "domain"),
    [
        (
            Grid(Axis("y", 5, boundary="dirichlet"), Axis("x", 8, length=0.5, origin=1.0)),
            "y: 5 nodes, dirichlet, [0, 1]; x: 8 nodes, periodic, [1, 1.5]",
            "y (dirichlet, 0 to 1), x (periodic, 1 to 1.5)",
        ),
        (
            SphereGrid(8, 16, radius=2.0),
            "8 × 16 legendre-gauss nodes on a sphere of radius 2",
            "a sphere (legendre-gauss, radius 2)",
        ),
    ],
    ids=["flat", "sphere"],
)
def test_a_grid_in_words(grid, whole, domain):
    assert in_words(grid) == whole
    assert in_words(grid, sizes=False) == domain


def test_coordinates_are_the_nodes_and_say_how_axes_end():
    coordinates = axis_coords(Grid.neumann(4))
    assert coordinates["x"].values.tolist() == Grid.neumann(4).points()[0].tolist()
    assert coordinates["x"].attrs["boundary"] == "neumann"
    latitude = axis_coords(SphereGrid(8, 16))["lat"]
    expected = torch.rad2deg(SphereGrid(8, 16).points()[0])
    torch.testing.assert_close(torch.from_numpy(latitude.values), expected)
    assert latitude.attrs["units"] == "degrees_north"
