"""Fields on fewer nodes: sizes per axis, by nodes or by modes."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import Grid, SphereGrid
from sobolev.grids.restriction import Restriction, at_resolution, resolution_of


@pytest.mark.parametrize(
    ("grid", "resolution", "shape"),
    [
        (Grid.periodic(8, 8), 4, (4, 4)),
        (Grid.periodic(8, 8), (4, 2), (4, 2)),
        (SphereGrid(8, 16), 4, (4, 8)),
        (SphereGrid(8, 16), [4, 6], (4, 6)),
    ],
)
def test_a_resolution_is_one_number_or_one_for_each_axis(grid, resolution, shape):
    sized = at_resolution(grid, resolution)
    assert sized.shape == shape
    assert at_resolution(grid, resolution_of(sized)) == sized


@pytest.mark.parametrize(
    ("grid", "shortest"),
    [
        (Grid.periodic(8, 8), 8),
        (Grid.periodic(8, 16), [8, 16]),
        (SphereGrid(8, 16), 8),
        (SphereGrid(8, 8), [8, 8]),
    ],
)
def test_the_shortest_resolution_is_found(grid, shortest):
    assert resolution_of(grid) == shortest


@pytest.mark.parametrize(
    ("resolution", "message"),
    [
        ((4,), "this grid has 2 axes"),
        ((True, 4), "at least 1 nodes, got size=True"),
        ((4, 0), "whole number of at least 1"),
    ],
)
def test_bad_resolutions_are_refused(resolution, message):
    with pytest.raises(ValueError, match=message):
        at_resolution(Grid.periodic(8, 8), resolution)


def wave(grid: Grid) -> torch.Tensor:
    y, x = torch.meshgrid(*grid.points(), indexing="ij")
    return torch.sin(2 * math.pi * y) + torch.cos(4 * math.pi * x)


@pytest.mark.parametrize("how", ["subsample", "spectral", None])
def test_a_field_that_both_grids_resolve_is_restricted_exactly(how):
    fine, coarse = Grid.periodic(12, 24), Grid.periodic(4, 8)
    restricted = Restriction((4, 8), how)(wave(fine), fine)
    torch.testing.assert_close(restricted, wave(coarse), atol=1e-13, rtol=0)


def test_nodes_are_picked_where_they_can_be_and_modes_cut_elsewhere():
    grid = Grid.periodic(12)
    u = torch.randn(3, 12, dtype=torch.float64)
    assert torch.equal(Restriction((6,))(u, grid), u[:, ::2])
    cut = grid.resample(u, Grid.periodic(8))
    assert torch.equal(Restriction((8,))(u, grid), cut)
    assert not torch.equal(Restriction((6,), "spectral")(u, grid), u[:, ::2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Restriction((4,), "mean"),
            "restriction must be subsample or spectral, got 'mean'",
        ),
        (
            lambda: Restriction((4, 16)).target(Grid.periodic(8, 8)),
            "8 × 8 nodes cannot be restricted to 4 × 16",
        ),
        (
            lambda: Restriction((5,), "subsample").target(Grid.periodic(8)),
            "can be subsampled to 8, 4, 2, 1",
        ),
    ],
)
def test_bad_restrictions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
