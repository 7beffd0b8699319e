"""The gallery: what is drawn is what is stored, and nothing that failed is drawn as good."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import sobolev.datasets.gallery as gallery
import sobolev.datasets.statistics as statistics
import sobolev.grids.drawing as drawing
from sobolev.datasets import generate, open_dataset, store_fields
from sobolev.datasets.gallery import show
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.statistics import Spectra, Statistics
from sobolev.grids.variables import Variable
from sobolev.solvers import Grid, SolutionError, SphereGrid, sobolev_norm

pytestmark = pytest.mark.draws

FAILED = 1  # the sample of ``Decay`` that blows up at its second frame


@dataclass(frozen=True)
class Decay(Recipe):
    """Random fields that decay, on a grid to be named; one of them fails."""

    inputs = ()
    outputs = (Variable("height", "height of $h$", "m2 s-1"),)
    title = "decay"
    equation = measure = references = "none"
    time_units = "s"

    shape: str = "torus"
    fails: bool = True
    solver_resolution: int = 8

    @property
    def times(self) -> tuple[float, ...]:
        return (0.0, 7200.0, 14400.0)

    def grid(self, resolution):
        if self.shape == "sphere":
            return SphereGrid(resolution, 2 * resolution)
        return Grid.periodic(
            *([resolution] * (1 if self.shape == "circle" else 2)), length=2 * math.pi
        )

    def resolutions(self):
        return [self.solver_resolution]

    def draw(self, streams, resolution=None):
        shape = self.grid(self.solver_resolution).shape
        return torch.from_numpy(np.stack([s.standard_normal(shape) for s in streams]))[:, None]

    def solve(self, inputs, grid):
        u = torch.stack([inputs * math.exp(-t / 7200) for t in self.times], dim=2)
        status = torch.zeros(len(u), dtype=torch.int8)
        if self.fails and len(u) > FAILED:
            u[FAILED, :, 1:], status[FAILED] = torch.nan, 1
            raise SolutionError("blown up", u, status)
        return u

    def refined(self):
        return self


@pytest.fixture(scope="session")
def decay(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "decay"
    return generate(Decay(), path, {"test": 6}, dtype="float64", progress=False)


@pytest.fixture
def figures(monkeypatch):
    """What ``show`` would write, by file name."""
    drawn = {}

    def keep(figure, file):
        drawn[file.name] = figure
        return file

    monkeypatch.setattr(gallery, "save_figure", keep)
    return drawn


def good(path, split="test", name="height"):
    data = open_dataset(path, split)
    return data[name].values[data.status.values == 0]


@pytest.mark.slow
def test_fields_without_time_become_pictures_beside_the_data(darcy_data):
    files = show(darcy_data, split="test")
    names = ["samples.png", "spectra.png", "statistics.png", "statistics.json"]
    assert files == [darcy_data / "figures" / name for name in names]
    for file in files[:-1]:
        with Image.open(file) as picture:
            picture.verify()
            assert min(picture.size) > 200


@pytest.mark.slow
def test_a_trajectory_becomes_a_strip_and_an_animation_of_all_its_frames(decay, tmp_path):
    files = show(decay, tmp_path / "out", samples=[0, 2])
    assert [f.name for f in files[:2]] == ["samples-height.png", "animation-height.gif"]
    with Image.open(files[1]) as film:
        assert film.n_frames == 3
        pictures = []
        for i in range(3):
            film.seek(i)
            pictures.append(np.asarray(film.convert("RGB"), dtype=int))
        # the field decays on a fixed scale: its colours fade
        spread = [np.ptp(picture, axis=-1).mean() for picture in pictures]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 2 * spread[-1]
    assert files[1].stat().st_size < 1e6


def test_no_animation_where_none_is_asked_for(decay, tmp_path, figures):
    files = show(decay, tmp_path, samples=[0], animation=None)
    assert not [f for f in files if f.suffix == ".gif"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["circle", "sphere"])
def test_lines_over_time_and_spheres_are_drawn(shape, tmp_path):
    data = generate(Decay(shape, fails=False), tmp_path / "d", {"test": 2}, progress=False)
    files = show(data, samples=[1])
    with Image.open(files[1]) as film:
        assert (film.format, film.n_frames) == ("GIF", 3)


@pytest.mark.slow
def test_maps_hold_the_stored_values_on_scales_that_suit_them(decay, darcy_data, figures):
    show(decay, samples=[2, 4], animation=None)
    panels = np.array(figures["samples-height.png"].axes[:6]).reshape(2, 3)  # then the colour bar
    (image,) = panels[1, 1].images
    expected = open_dataset(decay, "test").height.values
    np.testing.assert_array_equal(image.get_array()[:8, :8], expected[4, 1])
    np.testing.assert_array_equal(image.get_array()[8, :8], expected[4, 1, 0])  # periodic: closed
    shown = np.abs(expected[[2, 4]]).max()
    assert (image.norm.vmin, image.norm.vmax) == (-shown, shown)
    assert panels[0, 1].get_title() == "$t$ = 2 h"
    assert figures["samples-height.png"].axes[-1].get_ylabel() == r"height of \$h\$ (m² s⁻¹)"

    show(darcy_data, split="test")
    first = figures["samples.png"].axes[0].images[0]
    assert (first.norm.vmin, first.norm.vmax, first.get_cmap().name) == (3.0, 12.0, "viridis")


@pytest.mark.parametrize("block", [1, 150, 2**22])
def test_statistics_are_those_of_the_good_samples(decay, tmp_path, monkeypatch, block):
    monkeypatch.setattr(statistics, "_BLOCK", block)
    monkeypatch.setattr(gallery, "save_figure", lambda figure, file: file)
    values = good(decay)
    assert len(values) == 5
    found = Statistics.of(open_dataset(decay, "test"), "height", Grid.periodic(8, 8))
    np.testing.assert_allclose(found.mean.ravel(), values.mean(axis=(0, 2, 3)), atol=1e-14)
    np.testing.assert_allclose(found.variance.ravel(), values.var(axis=(0, 2, 3)), rtol=1e-12)
    written = json.loads(show(decay, tmp_path, animation=None)[-1].read_text())
    expected = {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
    }
    assert written["variables"]["height"] == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert written["samples"] == 6
    assert written["failed"] == {"blown_up": 1, "unresolved": 0}
    assert written["error_estimates"]["count"] == 1


def test_statistics_of_fields_without_time_are_kept_by_node(darcy_data):
    values = open_dataset(darcy_data).pressure.values.astype(np.float64)
    found = Statistics.of(open_dataset(darcy_data), "pressure", Grid.dirichlet(17, 17))
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, values.var(axis=0), atol=1e-18)
    summary = found.summary()
    assert summary["std"] == pytest.approx(values.std(), rel=1e-12)
    assert summary["mean"] == pytest.approx(values.mean(), rel=1e-12)


def test_on_a_sphere_nodes_count_by_their_area():
    grid = SphereGrid(12, 24)
    sine = grid.points()[0].sin()[:, None].expand(grid.shape).numpy()
    for dims, values in ((("sample",), sine[None]), (("sample", "time"), sine[None, None])):
        data = xr.Dataset({"u": ((*dims, "lat", "lon"), values), "status": ("sample", [0])})
        summary = Statistics.of(data, "u", grid).summary()
        assert summary["std"] == pytest.approx(3**-0.5, rel=1e-12)  # ∫ sin² = 4π/3
        assert summary["mean"] == pytest.approx(0, abs=1e-14)


GRIDS = [
    Grid.periodic(16, length=3.0),
    Grid.periodic(8, 12, length=2.0),
    Grid.neumann(9, 7),
    Grid.dirichlet(9, 9),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_spectra_sum_to_the_squared_norm(grid):
    u = torch.randn(3, 2, *grid.shape, dtype=torch.float64)
    spectra = Spectra.of(u.numpy(), grid)
    norm = sobolev_norm(u, grid).square()
    np.testing.assert_allclose(spectra.energy.sum(axis=-1), norm, rtol=1e-12)


def test_spectra_of_fields_in_a_box_do_not_tell_of_its_border():
    box = Grid.dirichlet(17, 17)
    flat = Spectra.of(np.ones((1, 1, 17, 17)), box)
    assert flat.energy[0, 0, 1:].max() < 1e-25  # in sines it would fall off as k⁻²
    y, x = (torch.sin(3 * math.pi * p) for p in box.points())
    clamped = Spectra.of((y[:, None] * x).numpy()[None, None], box)
    assert clamped.energy[0, 0].argmax() == 4  # √(3² + 3²), to the nearest shell
    assert clamped.energy[0, 0].sum() == pytest.approx(1 / 4, rel=1e-12)
    assert clamped.cutoff == pytest.approx(15 * math.pi)


def test_the_spectra_drawn_are_means_and_ranges_of_the_good_samples(decay, figures):
    show(decay, animation=None)
    (axes,) = figures["spectra.png"].axes
    energy = Spectra.of(good(decay), Grid.periodic(8, 8, length=2 * math.pi)).energy
    lines = [line for line in axes.lines if line.get_label().startswith("$t$")]
    assert [line.get_label() for line in lines] == ["$t$ = 0 h", "$t$ = 2 h", "$t$ = 4 h"]
    for frame, (line, band) in enumerate(zip(lines, axes.collections, strict=True)):
        np.testing.assert_allclose(line.get_ydata(), energy[:, frame, 1:].mean(axis=0), rtol=1e-12)
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx(energy[:, frame, 1:].max(), rel=1e-12)
        assert edges.min() == pytest.approx(energy[:, frame, 1:].min(), rel=1e-12)
    assert axes.lines[-1].get_xdata()[0] == pytest.approx(4)  # 8 nodes on 2π


def test_mollweides_projection_keeps_areas_and_directions():
    grid = SphereGrid(180, 360, "equiangular")
    latitude, longitude = (p.numpy() for p in grid.points())
    north = drawing._image(np.broadcast_to(latitude[:, None], grid.shape), grid, 1)
    share = (north > math.pi / 6).sum() / north.count()
    assert share == pytest.approx(1 / 4, abs=0.005)  # of the sphere lies beyond 30°N
    assert north[-1].mean() > 1  # drawn from the bottom to the top
    middle = drawing._image(np.broadcast_to(longitude, grid.shape), grid, 1)[120].data
    assert middle[[0, 120, 240, 360]] == pytest.approx(np.pi * np.array([0, 0.5, 1, 1.5]), abs=0.03)


def test_failed_samples_are_left_out_with_a_note(decay, figures, caplog):
    show(decay, animation=None)
    titles = [axes.get_ylabel() for axes in figures["samples-height.png"].axes[:12:3]]
    assert [t.splitlines()[0] for t in titles] == ["sample 0", "sample 2", "sample 3", "sample 4"]
    assert "6 samples, of which 1 blown up and left out" in figures["statistics.png"].get_suptitle()
    with caplog.at_level(logging.WARNING, "sobolev"):
        show(decay, samples=[0, FAILED], animation=None)
    assert "test sample 1 is left out: the solver gave up on it (blown up)" in caplog.text
    assert len(figures["samples-height.png"].axes) == 3 + 1
    for image in [i for axes in figures["samples-height.png"].axes for i in axes.images]:
        assert np.isfinite(image.get_array()).all()


def test_values_that_are_not_finite_are_refused(decay):
    data = open_dataset(decay, "test").load()
    data["status"][:] = 0
    with pytest.raises(
        ValueError, match=r"height holds values that are not finite.*sobolev verify"
    ):
        Statistics.of(data, "height", Grid.periodic(8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"no split 'valid' here; there are: test"),
        ({"samples": [0, 6]}, r"split 'test' has samples 0 to 5; there is no sample 6"),
        ({"samples": [-1]}, r"there is no sample -1"),
        (
            {"samples": [FAILED]},
            r"none of the samples \[1\] of split 'test' was solved; .* begin with 0, 2",
        ),
        ({"samples": []}, r"none of the samples \[\]"),
        ({"animation": "avi"}, r"animation must be 'gif', 'mp4' or None, got 'avi'"),
    ],
)
def test_what_does_not_exist_is_named(decay, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        show(decay, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_mp4_without_ffmpeg_says_how_to_install_it(decay, darcy_data, monkeypatch, figures):
    monkeypatch.setattr(drawing.FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(FileNotFoundError, match="apt install ffmpeg"):
        show(decay, animation="mp4")
    show(darcy_data, animation="mp4")  # nothing to animate


def test_a_split_that_failed_altogether_is_refused(tmp_path, monkeypatch):
    path = generate(Decay(), tmp_path / "d", {"test": 2}, progress=False)
    monkeypatch.setattr(gallery, "good_samples", lambda data: np.array([], int))
    with pytest.raises(ValueError, match="every sample of split 'test' failed"):
        show(path)


def test_of_fields_in_three_dimensions_the_middle_is_drawn(tmp_path):
    box = Grid.neumann(9, 6, 6, length=2.0)
    heat = np.random.default_rng(0).random((3, *box.shape))
    fields = {"a": (("sample", *box.dims), heat), "b": (("sample", *box.dims), heat**2)}
    path = store_fields(
        xr.Dataset(fields),
        tmp_path / "box",
        inputs="a",
        outputs="b",
        boundary="neumann",
        length=2.0,
    )
    view = gallery._view(path, None, [2, 0]).flat()
    assert view.where == ", z = 1"
    np.testing.assert_allclose(view.read(view.variables[1], view.samples), heat[[2, 0], 4] ** 2)
    assert {file.name for file in show(path)} >= {"samples.png", "statistics.png", "spectra.png"}
