"""Fields on a part of their box: stored with their mask, drawn around holes, counted over the domain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sobolev.datasets import (
    HoledDarcyRecipe,
    Manifest,
    OperatorDataModule,
    generate,
    open_dataset,
    show,
    store_fields,
    verify,
)
from sobolev.datasets.figures import statistics_drawn
from sobolev.datasets.generating.generation import streams
from sobolev.datasets.statistics import Statistics
from sobolev.datasets.views import View

SMALL = HoledDarcyRecipe(solver_resolution=65, stored_resolution=33)
CIRCLE = {"boundary": "periodic", "progress": False}


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    path = tmp_path_factory.mktemp("holes") / "data"
    generate(SMALL, path, {"train": 6, "test": 2}, progress=False)
    return path


def test_holes_are_rectangles_at_the_same_place_on_every_grid(holes):
    assert verify(holes, redraw=1) == []
    (dice,) = streams(Manifest.read(holes), "train", range(2, 3))
    fine = SMALL.draw([dice], 129)[0, 0].numpy()
    stored = open_dataset(holes)["mask"].values[2]
    np.testing.assert_array_equal(fine[::4, ::4], stored)
    rows, columns = np.where(stored == 0)
    assert (stored[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 0).all()
    assert min(np.ptp(rows), np.ptp(columns)) >= SMALL.least
    assert max(np.ptp(rows), np.ptp(columns)) <= SMALL.most


def test_statistics_are_those_of_the_domain(holes):
    data = OperatorDataModule(holes, train_samples=5)
    raw = open_dataset(holes).load().isel(sample=slice(0, 5))
    inside = raw.pressure.values[raw["mask"].values == 1].astype(float)
    assert data.statistics["pressure"] == pytest.approx((inside.mean(), inside.std()), rel=1e-5)
    assert [v.name for v in data.inputs] == ["mask", "permeability"]
    coarse = OperatorDataModule(holes, resolution=17)
    assert set(coarse.pairs("train")[:][0][:, 0].unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="no modes to cut"):
        OperatorDataModule(holes, resolution=17, restriction="spectral")


def test_recipes_whose_holes_do_not_end_at_nodes_are_refused():
    with pytest.raises(ValueError, match="a multiple of 32 plus 1"):
        HoledDarcyRecipe(solver_resolution=100)
    with pytest.raises(ValueError, match="least ≤ most"):
        HoledDarcyRecipe(least=13)
    assert HoledDarcyRecipe().resolutions() == [129, 65, 33]


@pytest.mark.draws
def test_holes_are_left_blank_in_pictures(holes, tmp_path):
    files = show(holes, tmp_path, samples=[0])
    assert {file.name for file in files} >= {"samples.png", "spectra.png", "statistics.png"}


def coast() -> xr.Dataset:
    """Fields with gaps: a coast that is the same in all runs, and a lake in the last."""
    x = np.arange(12) / 12
    values = 2 + np.sin(2 * np.pi * x) + np.arange(5.0)[:, None]
    values[:, 8:] = np.nan
    values[4, 2] = np.nan
    return xr.Dataset({"a": (("run", "x"), values), "b": (("run", "x"), 3 * values)}, {"x": x})


def test_gaps_are_asked_about_and_become_a_mask(tmp_path):
    with pytest.raises(ValueError, match=r"a has no value at 4 of 12 nodes .* mask='nan'"):
        store_fields(coast(), tmp_path / "d", inputs="a", outputs="b", **CIRCLE)
    store_fields(coast(), tmp_path / "d", inputs="a", outputs="b", mask="nan", **CIRCLE)
    assert verify(tmp_path / "d") == []
    found = open_dataset(tmp_path / "d").load()
    np.testing.assert_array_equal(found["mask"], np.isfinite(coast().a))
    np.testing.assert_allclose(found.a.where(found["mask"] == 1), coast().a, rtol=1e-6)
    assert (found.b.values[found["mask"].values == 0] == 0).all()
    assert found.status.values.tolist() == [0] * 5


def test_a_mask_by_name_is_one_for_all_or_one_for_each(tmp_path):
    land = coast().assign(sea=("x", np.arange(12) < 8)).fillna(7.0)
    store_fields(land, tmp_path / "d", inputs="a", outputs="b", mask="sea", **CIRCLE)
    found = open_dataset(tmp_path / "d").load()
    np.testing.assert_array_equal(found["mask"], np.tile(np.arange(12) < 8, (5, 1)))
    alone = land.assign(b=land.b)
    store_fields(alone, tmp_path / "e", outputs="b", mask="sea", **CIRCLE)
    assert [v["name"] for v in Manifest.read(tmp_path / "e").inputs] == ["mask"]


def test_frames_share_the_domain_of_their_trajectory(tmp_path):
    values = np.ones((2, 3, 8))
    values[:, :, 5:] = np.nan
    values[1, 2, 0] = np.nan  # the run blew up there
    moving = xr.Dataset(
        {"u": (("run", "time", "x"), values)}, {"x": np.arange(8) / 8, "time": [0.0, 1, 2]}
    )
    store_fields(moving, tmp_path / "d", outputs="u", mask="nan", **CIRCLE)
    found = open_dataset(tmp_path / "d").load()
    np.testing.assert_array_equal(found["mask"], np.tile(np.arange(8) < 5, (2, 1)))
    assert found.status.values.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dataset", "mask", "said"),
    [
        (coast(), "see", "no variable 'see' for a mask; there are a, b, or 'nan'"),
        (coast().assign(sea=("x", np.arange(12.0))), "sea", "other values than 0 and 1"),
        (coast().assign(sea=("x", np.zeros(12))), "sea", "covers all nodes of sample 0"),
        (coast().where(coast().run != 1), "nan", "covers all nodes of sample 1"),
        (coast().rename(a="mask"), "nan", "a field is called 'mask'"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path, dataset, mask, said):
    name = "mask" if "mask" in dataset else "a"
    with pytest.raises(ValueError, match=said):
        store_fields(dataset, tmp_path / "d", inputs=name, outputs="b", mask=mask, **CIRCLE)


def test_values_outside_the_domain_are_in_no_histogram(holes, monkeypatch):
    """The medium has two phases, of 3 and 12, and nothing at 0."""
    heights: list[tuple[np.ndarray, np.ndarray]] = []
    histogram = np.histogram

    def counted(values, edges, **options):
        heights.append((values, edges))
        return histogram(values, edges, **options)

    monkeypatch.setattr(np, "histogram", counted)
    manifest = Manifest.read(holes)
    view = View(open_dataset(holes), manifest, manifest.grid, "train", [0])
    found = {v.name: Statistics.of(view.data, v.name, view.grid) for v in view.variables}
    statistics_drawn(view, found)
    (values, edges), *_ = heights[1:]
    assert set(np.unique(values).tolist()) == {3.0, 12.0}
    assert edges[0] == 3
