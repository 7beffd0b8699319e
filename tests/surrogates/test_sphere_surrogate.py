"""Surrogates on the sphere: from shallow-water data to a saved operator, its predictions and scores."""

from __future__ import annotations

import math
from functools import partial

import lightning
import numpy as np
import pytest
import torch
import xarray as xr

from sobolev import Grid, SphereGrid, Surrogate
from sobolev.datasets import OperatorDataModule, ShallowWaterRecipe, generate
from sobolev.evaluation.comparison import evaluate
from sobolev.evaluation.judged import evaluate_run
from sobolev.operators import FNO, SFNO
from sobolev.training import OperatorModule, SobolevLoss

GAUSS = SphereGrid(16, 32)
STATE = ShallowWaterRecipe.outputs


def operator() -> SFNO:
    return SFNO(3, 3, grid=GAUSS, degrees=8, width=6, depth=2)


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """4 training and 2 test trajectories of 3 frames on 16 × 32 of 24 × 48 nodes."""
    path = tmp_path_factory.mktemp("data") / "water"
    recipe = ShallowWaterRecipe(hours=2, solver_resolution=24, stored_resolution=16)
    return generate(recipe, path, {"train": 4, "test": 2}, resolution=16, progress=False)


@pytest.fixture
def surrogate() -> Surrogate:
    scales = {"vorticity": (0.0, 2e-5), "divergence": (0.0, 1e-6), "geopotential": (9.8e4, 1e3)}
    return Surrogate(operator(), GAUSS, STATE, STATE, scales).eval()


def state(grid: SphereGrid = GAUSS, count: int = 2) -> xr.Dataset:
    """Smooth fields: a zonal and a wave-like harmonic, shifted from sample to sample."""
    latitude, longitude = (x.numpy() for x in grid.points())
    wave = np.stack(
        [np.cos(latitude)[:, None] ** 2 * np.cos(2 * longitude + i) for i in range(count)]
    )
    fields = {
        "vorticity": 2e-5 * (wave + np.sin(latitude)[:, None]),
        "divergence": 1e-6 * wave,
        "geopotential": 9.8e4 + 1e3 * wave,
    }
    coords = {
        "lat": ("lat", np.degrees(latitude), {"units": "degrees_north"}),
        "lon": ("lon", np.degrees(longitude), {"units": "degrees_east"}),
    }
    return xr.Dataset({n: (("sample", "lat", "lon"), v) for n, v in fields.items()}, coords)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*treespec.*", "ignore:.*number of training batches.*")
def test_from_shallow_water_data_to_a_judged_surrogate(water, tmp_path):
    data = OperatorDataModule(water, batch_size=2)
    module = OperatorModule(operator(), data, loss=partial(SobolevLoss, order=1.0))
    before = [p.detach().clone() for p in module.surrogate.operator.parameters()]
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    after = module.surrogate.operator.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    folder = module.surrogate.save(tmp_path / "run" / "surrogate")
    again = Surrogate.load(folder)
    u = data.pairs("test")[:][0]
    assert torch.equal(module.surrogate.eval()(u), again(u))
    assert again.grid == GAUSS
    scores = evaluate_run(tmp_path / "run", water, [8, 16, 20]).scores
    assert [s.resolution for s in scores] == [8, 16, 20]
    assert all(math.isfinite(s.relative_l2) and s.samples == 4 for s in scores)
    pictures = {f.name for f in (tmp_path / "run" / "evaluation").glob("*.png")}
    assert pictures == {"fields-8.png", "fields-20.png", "spectrum.png"}


def test_fields_of_every_resolution_are_those_of_one_trajectory(water, surrogate):
    """Cut from the stored fields (8, 12) or drawn again (20, 24): the same harmonics up to degree 7."""
    surrogate.record(data={"window": [1, 1, 1]})
    modes = {}
    for n in (8, 12, 16, 20, 24):
        comparison = evaluate(surrogate, water, n)[1]
        assert comparison.grid == SphereGrid(n, 2 * n)
        modes[n] = comparison.grid.to_modes(comparison.targets.double())[..., :64]
    for n in (8, 12, 20, 24):
        worst = (modes[n] - modes[16]).abs().amax(dim=(0, 2)) / modes[16].abs().amax(dim=(0, 2))
        assert worst.max() < 1e-5, n


def test_predictions_have_the_coordinates_of_the_sphere(surrogate):
    result = surrogate.predict(state(), resolution=12)
    assert dict(result.sizes) == {"sample": 2, "lat": 12, "lon": 24}
    assert result.geopotential.attrs["units"] == "m2 s-2"
    assert result.lat.attrs["units"] == "degrees_north"
    np.testing.assert_allclose(result.lat, np.degrees(SphereGrid(12, 24).points()[0].numpy()))
    other = surrogate.predict(state(), resolution=(12, 30))
    assert dict(other.sizes) == {"sample": 2, "lat": 12, "lon": 30}


def test_a_prediction_does_not_depend_on_the_resolution_of_a_band_limited_input(surrogate):
    coarse = surrogate.predict(state(SphereGrid(20, 40)), resolution=16)
    np.testing.assert_allclose(
        coarse.geopotential, surrogate.predict(state()).geopotential, rtol=1e-6
    )
    np.testing.assert_allclose(coarse.vorticity, surrogate.predict(state()).vorticity, atol=1e-9)


def in_radians(data):
    angles = {name: data[name] * (math.pi / 180) for name in ("lat", "lon")}
    for angle in angles.values():
        angle.attrs["units"] = "radians"
    return data.assign_coords(angles)


@pytest.mark.parametrize(
    "change",
    [
        in_radians,
        lambda d: d.transpose("lon", "sample", "lat"),
        lambda d: d.assign_coords(lat=d.lat.values, lon=d.lon.values.astype(np.float32)),
        lambda d: d.assign_coords(lat=d.lat.assign_attrs(grid="legendre-gauss", radius=1.0)),
    ],
    ids=["radians", "order", "no units", "attributes"],
)
def test_the_same_fields_said_otherwise_give_the_same_prediction(surrogate, change):
    expected, found = surrogate.predict(state()), surrogate.predict(change(state()))
    assert found.geopotential.dims == ("sample", "lat", "lon")
    np.testing.assert_array_equal(found.geopotential, expected.geopotential)


def on(grid):
    return lambda data: state(grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (on(SphereGrid(16, 32, "equiangular")), "are equiangular; .* legendre-gauss, from north"),
        (
            lambda d: d.assign_coords(lat=d.lat + 1),
            "16 latitudes run from 82.65.* legendre-gauss, .* 81.6506° to -81.6506°",
        ),
        (lambda d: d.assign_coords(lon=d.lon * 0.5), "run from 0° to 174.375°.* 0° to 348.75°"),
        (lambda d: d.assign_coords(lat=d.lat.assign_attrs(units="m")), "lat is in units 'm'"),
        (lambda d: d.assign_coords(lat=d.lat.assign_attrs(grid="equiangular")), "are equiangular"),
        (lambda d: d.assign_coords(lat=d.lat.assign_attrs(radius=6.4e6)), "radius 6.4e.06.* 1$"),
        (lambda d: d.assign_coords(lat=d.lat.assign_attrs(radius="6371 km")), "radius '6371 km'"),
        (
            lambda d: d.assign_coords(lat=d.lat.assign_attrs(units="degrees_east")),
            "lat is in units 'degrees_east'; expected degrees_north, degrees or radians",
        ),
        (
            lambda d: d.assign_coords(lon=d.lon.assign_attrs(units="degrees_west")),
            "lon is in units 'degrees_west'; expected degrees_east",
        ),
        (
            lambda d: d.rename(lat="y", lon="x").assign_coords(
                lat=(("y", "x"), np.ones((16, 32))), lon=(("y", "x"), np.ones((16, 32)))
            ),
            r"coordinate 'lat' has dimensions \(y, x\)",
        ),
        (lambda d: d.drop_vars("lon"), "no coordinate 'lon'"),
        (lambda d: d.isel(lat=slice(2)), "nlat of at least 3"),
        (lambda d: d.rename(lat="y").drop_vars("y"), "no coordinate 'lat'"),
    ],
)
def test_unfit_spheres_are_refused_by_name(surrogate, change, message):
    with pytest.raises(ValueError, match=message):
        surrogate.predict(change(state()))


def test_operators_and_grids_that_do_not_go_together_are_refused(water):
    scales = {v.name: (0.0, 1.0) for v in STATE}
    with pytest.raises(ValueError, match="FNO works on flat grids, the data live on a sphere"):
        OperatorModule(FNO(3, 3, modes=(4, 4)), OperatorDataModule(water))
    with pytest.raises(ValueError, match="SFNO works on a sphere, the data live on a flat grid"):
        Surrogate(operator(), Grid.periodic(8, 8), STATE, STATE, scales)


def test_a_surrogate_of_another_sphere_is_not_judged_on_these_fields(water):
    scales = {v.name: (0.0, 1.0) for v in STATE}
    larger = SphereGrid(16, 32, radius=6.4e6)
    other = Surrogate(SFNO(3, 3, grid=larger, width=4), larger, STATE, STATE, scales)
    with pytest.raises(ValueError, match=r"radius 6400000\); .* radius 1\)"):
        evaluate(other, water, 16)
    flat = Surrogate(FNO(3, 3, modes=(4, 4)), Grid.periodic(8, 8), STATE, STATE, scales)
    with pytest.raises(ValueError, match=r"periodic, 0 to 1\); .* sphere \(legendre-gauss"):
        evaluate(flat, water, 16)
