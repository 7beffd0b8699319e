"""Certificates: bounds hold against a sparse direct solve, tolerances are kept, coverage is as stated."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
import xarray as xr

from sobolev import Grid, Surrogate
from sobolev.__main__ import main
from sobolev.certification import calibrate, certificate_of, certified, effectivity
from sobolev.certification.calibration import conformal_quantile
from sobolev.certification.certificates import Guarantee
from sobolev.certification.residuals import residual_norm
from sobolev.datasets import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    OperatorDataModule,
    ShallowWaterRecipe,
)
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.grids.description import axis_coords
from sobolev.grids.streams import stream
from sobolev.operators import FNO
from sobolev.solvers import Darcy, SphereGrid
from sobolev.surrogates.files import meaning_digest

TWO_PHASE = DarcyRecipe(solver_resolution=25)
N = 25
GRID = TWO_PHASE.grid(N)


def stiffness(a: np.ndarray) -> scipy.sparse.csc_array:
    """The five-point matrix of −∇·(a∇·) on the inner nodes: for each edge a face's mean of a, with
    the border's rows and columns left out."""
    node = np.arange(a.size).reshape(a.shape)
    ends = [(node[:-1], node[1:]), (node[:, :-1], node[:, 1:])]
    p, q = (np.concatenate([pair[i].ravel() for pair in ends]) for i in (0, 1))
    edges = np.arange(len(p))
    difference = scipy.sparse.coo_array(
        (np.repeat([1.0, -1.0], len(p)), (np.tile(edges, 2), np.concatenate([p, q]))),
        shape=(len(p), a.size),
    ).tocsc()
    face = (a.ravel()[p] + a.ravel()[q]) / 2 * (len(a) - 1) ** 2
    inner = node[1:-1, 1:-1].ravel()
    difference = difference[:, inner]
    return (difference.T @ scipy.sparse.diags_array(face) @ difference).tocsc()


def true_errors(a: torch.Tensor, p: torch.Tensor) -> np.ndarray:
    """‖u − p‖_a / ‖u‖_a with u by sparse LU, for f = 1."""
    found = []
    for coefficient, field in zip(a[:, 0].double().numpy(), p[:, 0].double().numpy(), strict=True):
        A = stiffness(coefficient)
        u = scipy.sparse.linalg.spsolve(A, np.ones(A.shape[0]))
        e = u - field[1:-1, 1:-1].ravel()
        found.append(math.sqrt((e @ (A @ e)) / (u @ (A @ u))))
    return np.array(found)


def media(recipe: DarcyRecipe = TWO_PHASE, count: int = 3) -> torch.Tensor:
    return recipe.draw([stream(5, i) for i in range(count)])


def bumps() -> torch.Tensor:
    y, x = (torch.sin(math.pi * t) for t in GRID.points())
    return y[:, None] * torch.sin(3 * math.pi * GRID.points()[1]) + 0.2 * y[:, None] * x


def predictions(u: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every quality; borders are zero, as a surrogate's are."""
    kinds = {
        "as trained": u * (1 + 0.1 * bumps()) + 0.003 * torch.randn_like(u) * u.amax(),
        "nearly exact": u * (1 + 1e-6 * bumps()),
        "zero": 0 * u,
        "opposite": -u,
        "noise": torch.randn_like(u),
        "garbage": 1e30 * torch.randn_like(u),
    }
    return {name: GRID.without_border(p) for name, p in kinds.items()}


@pytest.mark.parametrize(
    "recipe",
    [
        TWO_PHASE,
        DarcyRecipe(high=1000.0, low=1.0, solver_resolution=N),
        DarcyRecipe(medium="lognormal", sigma=3.0, solver_resolution=N),
    ],
    ids=["contrast 4", "contrast 1000", "lognormal"],
)
def test_bound_holds_for_any_prediction(recipe):
    a = media(recipe)
    contrast = float((a.amax((1, 2, 3)) / a.amin((1, 2, 3))).max())
    for name, p in predictions(recipe.solve(a, GRID)).items():
        bound, error = Guarantee(recipe).bound(a, p, GRID).numpy(), true_errors(a, p)
        assert np.isfinite(bound).all(), name
        assert (bound >= error * (1 - 1e-7)).all(), name
        # at most √κ from the residual, (κ + 1) / 2√κ from the trial field for the size of u (Kantorovich)
        assert (bound <= (contrast + 1) / 2 * error * 1.01).all(), name


def test_bound_is_sharp_where_the_coefficient_is_constant():
    recipe = replace(TWO_PHASE, high=3.0, low=3.0)
    a = media(recipe, 1)
    u = recipe.solve(a, GRID)
    for size, room in ((1e-4, 1e-6), (1e-2, 1e-4), (0.1, 0.01)):
        rough = GRID.without_border(u * (1 + size * torch.randn_like(u)))
        ratio = Guarantee(recipe).bound(a, rough, GRID).item() / true_errors(a, rough)[0]
        assert 1 - 1e-9 <= ratio <= 1 + room
    assert Guarantee(recipe).bound(a, 0 * u, GRID).item() == pytest.approx(1, abs=1e-3)


def test_no_forcing_has_no_error_but_that_of_a_prediction():
    recipe, a = replace(TWO_PHASE, forcing=0.0), media(count=2)
    p = torch.stack([torch.zeros(1, N, N), torch.rand(1, N, N)])
    assert Guarantee(recipe).bound(a, p, GRID).tolist() == [0.0, math.inf]


class Imperfect(Surrogate):
    """The solution with a relative error that grows from sample to sample, in float32."""

    errors = (0.0, 1e-3, 0.05, 0.3)

    def forward(self, u, size=None):
        solved = TWO_PHASE.solve(u.double(), GRID)
        errors = torch.tensor(self.errors)[: len(u), None, None, None]
        return GRID.without_border(solved * (1 + errors * bumps())).float()


def surrogate(recipe=TWO_PHASE, kind=Surrogate, grid=GRID, **provenance) -> Surrogate:
    modes = (3,) * grid.ndim
    boundary = [axis.boundary for axis in grid.axes]
    operator = FNO(1, 1, modes=modes, width=4, depth=1, boundary=boundary)
    unit = {v.name: (0.0, 1.0) for v in (*recipe.inputs, *recipe.outputs)}
    found = {"data": {"recipe": recipe.configuration()}, **provenance}
    return kind(operator, grid, recipe.inputs, recipe.outputs, unit, found).eval()


def dataset(count: int = 4) -> xr.Dataset:
    fields = {"permeability": (("sample", "y", "x"), media(count=count)[:, 0].numpy())}
    return xr.Dataset(fields, axis_coords(GRID))


def fields(data: xr.Dataset, name: str) -> torch.Tensor:
    return torch.from_numpy(data[name].values)[:, None]


@pytest.mark.parametrize("kind", [Surrogate, Imperfect], ids=["untrained", "imperfect"])
def test_predictions_are_certified_and_left_alone(kind):
    judged, data = surrogate(kind=kind), dataset()
    plain, found = judged.predict(data), certified(judged, data)
    xr.testing.assert_identical(found.drop_vars("error_bound"), plain)
    bound, error = found.error_bound, true_errors(media(count=4), fields(found, "pressure"))
    assert bound.dims == ("sample",)
    assert (bound.values >= error).all()
    assert (bound.values <= 2.5 * error).all()
    assert bound.attrs["units"] == "1"
    assert bound.attrs["guaranteed"] == 1
    assert bound.attrs["norm"].startswith("energy")
    assert "same grid" in bound.attrs["reference"]
    alone = certified(judged, data.isel(sample=0)).error_bound
    assert alone.item() == pytest.approx(bound.values[0], rel=1e-3)


def test_a_tolerance_is_kept_and_what_is_within_it_stays(tmp_path):
    judged, data = surrogate(kind=Imperfect), dataset()
    plain, found = judged.predict(data), certified(judged, data, tolerance=1e-2)
    error = true_errors(media(count=4), fields(found, "pressure"))
    assert (error <= found.error_bound.values).all()
    assert (found.error_bound <= 1e-2).all()
    assert found.treatment.values.tolist() == [0, 0, 1, 1]
    assert found.treatment.attrs["flag_meanings"].split() == ["accepted", "improved"]
    assert found.pressure.dtype == np.float64
    np.testing.assert_array_equal(found.pressure[:2], plain.pressure[:2])
    assert (error[2:] < 0.2 * true_errors(media(count=4), fields(plain, "pressure"))[2:]).all()
    iterations = found.iterations.values
    cold = certified(surrogate(), data, tolerance=1e-2).iterations.values
    assert (iterations[:2] == 0).all()
    assert (iterations[2:] > 0).all()
    assert (iterations < cold).all()
    assert found.attrs["prediction_seconds"] > 0
    assert found.attrs["improvement_seconds"] > 0
    found.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    again = xr.open_dataset(tmp_path / "p.nc", engine="h5netcdf")
    xr.testing.assert_equal(again, found)
    assert again.treatment.attrs["flag_values"].tolist() == [0, 1]
    largest = float(certified(judged, data).error_bound.max())
    loose = certified(judged, data, tolerance=1.001 * largest)
    np.testing.assert_array_equal(loose.pressure, plain.pressure)
    assert not loose.treatment.any()


def test_effectivity_is_the_bound_over_the_error():
    judged, data = surrogate(kind=Imperfect), dataset()
    found = certified(judged, data)
    a, p = fields(data, "permeability"), fields(found, "pressure")
    truth = effectivity(judged, a, p, torch.full_like(p, math.nan), GRID)
    np.testing.assert_allclose(truth.error, true_errors(a, p), rtol=1e-3)
    np.testing.assert_array_equal(truth.bound, found.error_bound)
    assert truth.guaranteed
    assert ((truth.ratio >= 1) & (truth.ratio < 2.2)).all()


def test_certificates_with_another_default_device():
    judged, data = surrogate(), dataset()
    expected = certified(judged, data, tolerance=1e-2)
    with torch.device("meta"):
        found = certified(judged, data, tolerance=1e-2)
    np.testing.assert_array_equal(found.pressure, expected.pressure)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (BurgersRecipe(), "no error bound is known for predictions of BurgersRecipe.*DarcyRecipe"),
        (PRESETS["darcy-fno-published"], "PublishedDarcyRecipe.*solve no discrete equation"),
        (PRESETS["ns-fno-1e-3"], r"sobolev calibrate RUN --data DATA"),
        (ShallowWaterRecipe(), "Navier–Stokes on the torus.*ShallowWaterRecipe"),
    ],
)
def test_certificates_are_refused_where_none_is_known(recipe, message):
    grid = recipe.grid(16)
    if isinstance(grid, SphereGrid):
        judged = surrogate()  # an FNO is not for spheres; its meaning is exchanged
        judged.meaning = replace(
            judged.meaning, grid=grid, inputs=recipe.outputs, outputs=recipe.outputs
        )
        judged.record(data={"recipe": recipe.configuration()})
    else:
        with_inputs = replace_inputs(recipe)
        judged = surrogate(with_inputs, grid=grid)
        judged.record(data={"recipe": recipe.configuration()})
    with pytest.raises(ValueError, match=message):
        certificate_of(judged)


def replace_inputs(recipe):
    """The recipe as its windows are learned: from frames to frames."""
    if recipe.inputs:
        return recipe
    found = replace(recipe)
    object.__setattr__(found, "inputs", recipe.outputs)
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be a number between 0 and 1, got 0.0"),
        ({"tolerance": 1.0}, "between 0 and 1, got 1.0"),
        ({"tolerance": math.nan}, "between 0 and 1, got nan"),
        ({"tolerance": "small"}, "between 0 and 1, got 'small'"),
        ({"tolerance": True}, "between 0 and 1, got True"),
    ],
)
def test_unfit_options_are_refused(monkeypatch, options, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        certified(surrogate(), dataset(1), **options)


def test_unfit_fields_are_refused():
    data = dataset(1)
    with pytest.raises(ValueError, match="must be positive and finite; 1 of 1 fields"):
        certified(surrogate(), -data)
    with pytest.raises(ArithmeticError, match="where float64 cannot meet it"):
        certified(surrogate(), data, tolerance=1e-18)
    with pytest.raises(ValueError, match=r"along 'treatment'.*rename the dimension"):
        certified(surrogate(), data.rename(sample="treatment"), tolerance=0.1)
    unknown = surrogate()
    unknown.record(data={})
    with pytest.raises(ValueError, match="equation the predictions should obey is not known"):
        certified(unknown, data)
    assert "error_bound" not in unknown.predict(data)


@pytest.mark.parametrize(
    "grid",
    [Grid.dirichlet(N, N, length=2.0), Grid.periodic(N, N), Grid.dirichlet(N)],
    ids=["length", "boundary", "dimension"],
)
def test_a_certificate_of_another_grid_is_refused(grid):
    with pytest.raises(ValueError, match="says DarcyRecipe, but it maps permeability"):
        certificate_of(surrogate(grid=grid))


def test_a_certificate_of_other_variables_is_refused():
    judged = surrogate()
    other = replace(judged.outputs[0], units="Pa")
    judged.meaning = replace(judged.meaning, outputs=(other,))
    with pytest.raises(ValueError, match=r"permeability \[1\] to pressure \[Pa\]"):
        certificate_of(judged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "os.system"}, "os.system"),
        ({"class": ["DarcyRecipe"]}, "DarcyRecipe"),
        ({"forcing": "__import__('os')"}, 'needs a finite float for forcing, got "__import__'),
        ({"forcing": math.nan}, "needs a finite float for forcing, got nan"),
        ({"forcing": True}, "for forcing, got True"),
        ({"forcing": 10**400}, "needs a finite float for forcing"),
        ({"solver_resolution": 33.5}, "needs a finite int for solver_resolution, got 33.5"),
        ({"stored_resolution": "all"}, "for stored_resolution, got 'all'"),
        ({"medium": 3}, "needs a finite str for medium"),
        ({"colour": "red"}, "DarcyRecipe has no parameter 'colour'; it has high, low"),
        ({"low": -1.0}, "permeabilities must be positive"),
    ],
)
def test_recipes_of_strangers_are_checked_and_run_nothing(change, message):
    judged = surrogate()
    judged.record(data={"recipe": {**judged.provenance.data.recipe, **change}})
    with pytest.raises(ValueError, match=message):
        certified(judged, dataset(1))


def forged(path, data):
    """A saved surrogate whose file says this of its data, with checksums that fit."""
    surrogate().save(path)
    file = path / "surrogate.json"
    content = json.loads(file.read_text())
    content["provenance"]["data"] = data
    del content["self_sha256"]
    content["self_sha256"] = meaning_digest(content)
    file.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("recipe", ["DarcyRecipe", ["DarcyRecipe"], 7])
def test_what_is_no_recipe_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="recipe of class"):
        recipe_from(recipe)
    for data in ({"recipe": recipe}, recipe):
        with pytest.raises(ValueError, match="the provenance needs"):
            surrogate().record(data=data)
        with pytest.raises(ValueError, match=r"surrogate\.json: the provenance needs"):
            Surrogate.load(forged(tmp_path / "s", data))
    for data, message in (
        (
            {"window": 7},
            r"surrogate\.json: the provenance needs list\[int\] \| str for window of data, got 7",
        ),
        ({"window": [1, 1, "1"]}, "for window of data"),
        ({"window": [1, 1, 0]}, "stride"),
        ({"window": [1, 1, 1], "interval": "1"}, "for interval of data"),
        ({"window": [1, 1, 1], "interval": -1.0}, "interval between frames is a positive number"),
    ):
        with pytest.raises(ValueError, match=message):
            Surrogate.load(forged(tmp_path / "s", data))


@pytest.mark.parametrize(("count", "quantile"), [(9, 0.9), (19, 0.9), (30, 0.5)])
def test_conformal_quantiles_cover_as_they_say(count, quantile):
    """Of n + 1 exchangeable scores the last is at most the k-th smallest of the others with probability
    k / (n + 1), whatever their distribution."""
    trials = 4000
    scores = torch.randn(trials, count + 1, dtype=torch.float64).exp() ** 3
    covered = [float(s[-1]) <= conformal_quantile(s[:-1], quantile) for s in scores]
    expected = math.ceil((count + 1) * quantile) / (count + 1)
    deviation = math.sqrt(expected * (1 - expected) / trials)
    assert abs(np.mean(covered) - expected) < 4 * deviation
    assert expected >= quantile


def test_too_few_scores_for_a_quantile_are_refused():
    with pytest.raises(
        ValueError, match=r"0\.9 takes 9 validation trajectories or more, there are 8"
    ):
        conformal_quantile(torch.ones(8), 0.9)
    assert conformal_quantile(torch.arange(9.0), 0.9) == 8


@pytest.fixture
def flow(flow_data) -> tuple[Surrogate, OperatorDataModule]:
    """A surrogate of small flows in which every weight matters, trained on others of another seed."""
    data = OperatorDataModule(flow_data, window=(1, 2))
    operator = FNO(1, 2, modes=(4, 4), width=4, depth=1)
    record = {"data": {**data.provenance, "seed": 1}}
    found = Surrogate(operator, data.grid, data.inputs, data.outputs, data.statistics, record)
    return found, data


def test_trajectories_get_the_error_that_calibration_has_seen(flow, flow_data, tmp_path, capsys):
    judged, data = flow
    found = calibrate(judged, data, split="train", quantile=0.8)
    items = data.pairs("train")
    assert found.samples == len(items.samples) == 11
    inputs, targets = items[:]
    with torch.no_grad():
        judged.eval()
        truth = effectivity(judged, inputs, judged(inputs), targets, data.grid)
    direct = (judged(inputs) - targets).flatten(1).norm(dim=1) / targets.flatten(1).norm(dim=1)
    np.testing.assert_allclose(truth.error, direct.detach(), rtol=1e-5)
    assert not truth.guaranteed
    held = (truth.ratio >= 1 - 1e-9).float().mean()
    assert 0.5 < held < 1  # of all windows, of which one in each trajectory was seen

    judged.save(tmp_path / "s")
    again = Surrogate.load(tmp_path / "s")
    assert certificate_of(again).calibration == found
    given = xr.Dataset({"vorticity": (("sample", "y", "x"), inputs[:3, 0])}, axis_coords(data.grid))
    bound = certified(again, given).error_bound
    np.testing.assert_allclose(bound, found.factor * residual_norm(again, inputs[:3]), rtol=1e-6)
    assert bound.attrs["guaranteed"] == 0
    assert bound.attrs["coverage"] == 0.8
    assert bound.attrs["calibration_samples"] == 11
    uncalibrated = copy.copy(again)
    uncalibrated.record(calibration=None)
    for one in (again, uncalibrated):  # which is not sent to be calibrated first
        with pytest.raises(ValueError, match="guaranteed, as it is for Darcy flow"):
            certified(one, given, tolerance=0.1)

    options = ["calibrate", str(tmp_path / "s"), "--data", str(flow_data), "--split", "train"]
    assert main([*options, "--quantile", "0.8"]) == 0
    assert "for 80% of trajectories (11 seen)" in capsys.readouterr().out
    assert Surrogate.load(tmp_path / "s").provenance["calibration"]["factor"] == pytest.approx(
        found.factor
    )
    given.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    out = tmp_path / "out.nc"
    assert (
        main(["predict", str(tmp_path / "s"), str(tmp_path / "in.nc"), str(out), "--certify"]) == 0
    )
    assert "calibrated upper bound of the relative error, L2" in capsys.readouterr().out
    np.testing.assert_allclose(
        xr.open_dataset(out, engine="h5netcdf").error_bound, bound, rtol=1e-6
    )


def test_calibration_refuses_what_was_trained_on(flow, flow_data):
    judged, data = flow
    judged.record(data=data.provenance)
    with pytest.raises(
        ValueError, match=r"trained on trajectories of this split, 'train'.*another"
    ):
        calibrate(judged, data, split="train", quantile=0.5)
    more = OperatorDataModule(flow_data, window=(1, 2), valid_fraction=0.5)
    with pytest.raises(ValueError, match=r"of this split, 'valid'.*valid_fraction"):
        calibrate(judged, more, quantile=0.5)
    assert calibrate(judged, data, quantile=0.5).samples == 1
    assert calibrate(judged, data, split="test", quantile=0.5).samples == 3


def test_calibration_refuses_what_says_nothing(flow, flow_data):
    judged, data = flow
    with pytest.raises(ValueError, match="quantile must lie between 0 and 1, got 1"):
        calibrate(judged, data, quantile=1.0)
    with pytest.raises(ValueError, match="takes 9 validation trajectories or more, there are 1"):
        calibrate(judged, data)
    with pytest.raises(ValueError, match="the data are cut by"):
        calibrate(judged, OperatorDataModule(flow_data, window=(1, 1)))
    with pytest.raises(ValueError, match="is guaranteed; there is nothing to calibrate"):
        calibrate(surrogate(), data)
    assert "calibration" not in judged.provenance
    calibrate(judged, data, split="train")
    fine = xr.Dataset(
        {"vorticity": (("y", "x"), torch.rand(32, 32).numpy())}, axis_coords(Grid.periodic(32, 32))
    )
    with pytest.raises(ValueError, match=r"calibrated on 16 × 16 nodes.*errors on 32 × 32"):
        certified(judged, fine)


@pytest.mark.parametrize(
    "damage",
    [
        5,
        {"factor": 1.0},
        {"factor": -1.0},
        {"factor": "1"},
        {"quantile": 2.0},
        {"extra": 1},
        {"resolution": 16},
    ],
)
def test_damaged_calibrations_are_refused(flow, damage):
    judged, _ = flow
    good = {"factor": 2.0, "quantile": 0.9, "samples": 20, "resolution": [16, 16]}
    whole = isinstance(damage, dict) and damage != {"factor": 1.0}
    with pytest.raises(ValueError, match="calibration is damaged"):
        judged.record(calibration={**good, **damage} if whole else damage)
    judged.record(calibration=json.loads(json.dumps(good)))
    assert certificate_of(judged).calibration.factor == 2.0


def test_the_command_line_keeps_a_tolerance(tmp_path, capsys):
    surrogate().save(tmp_path / "s")
    dataset(2).to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    arguments = ["predict", *(str(tmp_path / f) for f in ("s", "in.nc", "out.nc"))]
    assert main([*arguments, "--tolerance", "1e-4"]) == 0
    assert "guaranteed upper bound of the relative error, energy" in capsys.readouterr().out
    found = xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf")
    assert (true_errors(media(count=2), fields(found, "pressure")) <= 1e-4).all()
    assert main([*arguments, "--tolerance", "2"]) == 2
    assert "tolerance must be a number between 0 and 1" in capsys.readouterr().err
    u = Darcy().solve(media(count=2)[:, 0], GRID)
    assert np.abs(found.pressure.values - u.numpy()).max() < 1e-4 * u.max()
