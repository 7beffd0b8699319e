"""Surrogates that are averaged over the symmetries of their equation."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
import xarray as xr

from sobolev import Axis, Grid, Surrogate
from sobolev.__main__ import main
from sobolev.certification import certified
from sobolev.datasets import PRESETS, DarcyRecipe, generate, open_dataset
from sobolev.grids.norms import relative_error
from sobolev.grids.symmetries import elements, turned
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, MgNO
from sobolev.surrogates.files import meaning_digest

# What torch's exporter warns about by itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ANY = Variable("force", "force", "N"), Variable("height", "height", "m")
SCALES = {"force": (3.0, 2.0), "height": (-1.0, 5.0)}
SQUARE = Axis("y", 9, boundary="dirichlet"), Axis("x", 9, boundary="dirichlet")
CASES = [
    (("odd reflection",), Grid.periodic(16), lambda: FNO(1, 1, (4,), width=8, depth=2)),
    (("quarter turns",), Grid.periodic(8, 8), lambda: FNO(1, 1, (3, 2), width=8, depth=2)),
    (
        ("reflections", "transposition"),
        Grid(*SQUARE),
        lambda: FNO(1, 1, (3, 2), width=8, depth=2, boundary="dirichlet", positions=True),
    ),
    (("reflections",), Grid(*SQUARE), lambda: MgNO(1, 1, levels=2, width=4, depth=2)),
]
each_case = pytest.mark.parametrize(("symmetries", "grid", "operator"), CASES)


def surrogate_of(grid, operator, provenance=None) -> Surrogate:
    built = operator()
    for p in built.parameters():  # as after training, when no layer is negligible
        torch.nn.init.normal_(p, 0.0, 0.3)
    return Surrogate(built, grid, ANY[:1], ANY[1:], SCALES, provenance).double().eval()


def images(u, grid, symmetries):
    return [turned(u, grid, symmetries, c) for c in elements(symmetries, grid.ndim)]


@pytest.mark.slow
@each_case
@torch.no_grad()
def test_commutes_with_the_group_and_errs_no_more(symmetries, grid, operator):
    """Over a whole orbit, the mean error is at most the plain surrogate's, whatever the truth is that
    commutes."""
    plain = surrogate_of(grid, operator)
    averaged = plain.symmetrized(symmetries)
    u = torch.randn(3, 1, *grid.shape, dtype=torch.float64)
    truth = images(torch.randn(3, 1, *grid.shape, dtype=torch.float64), grid, symmetries)
    inputs, expected = images(u, grid, symmetries), images(averaged(u), grid, symmetries)
    for v, w in zip(inputs, expected, strict=True):
        torch.testing.assert_close(averaged(v), w, rtol=0, atol=1e-10)
    assert any(
        (plain(v) - w).abs().max() > 1e-2
        for v, w in zip(inputs, images(plain(u), grid, symmetries), strict=True)
    )
    errors = [
        torch.stack([relative_error(s(v), t, grid) for v, t in zip(inputs, truth, strict=True)])
        for s in (averaged, plain)
    ]
    assert (errors[0].mean(0) < errors[1].mean(0)).all()


@pytest.mark.slow
@each_case
@torch.no_grad()
def test_the_group_is_the_same_on_the_grid_of_the_output(symmetries, grid, operator):
    """Finer than the input's, and with another number of nodes on each axis."""
    averaged = surrogate_of(grid, operator).symmetrized(symmetries)
    size = [2 * n + 1 + 2 * i for i, n in enumerate(grid.shape)]
    u = torch.randn(2, 1, *grid.shape, dtype=torch.float64)
    for coins in elements(symmetries, grid.ndim):
        expected = turned(averaged(u, size=size), grid, symmetries, coins)
        found = averaged(turned(u, grid, symmetries, coins), size=expected.shape[2:])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_outputs_whose_nodes_the_glides_do_not_keep_are_refused_as_inputs_are():
    """At 36 nodes the images were turned back by whole nodes, which lie elsewhere."""
    grid = Grid.periodic(8, 8)
    averaged = surrogate_of(grid, CASES[1][2]).symmetrized(["diagonal glides"])
    u = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    assert averaged(u, size=(24, 16)).shape == (1, 1, 24, 16)
    message = r"8 divides their number; got \(36, 32\), take \(40, 32\)"
    with pytest.raises(ValueError, match=message):
        averaged(u, size=(36, 32))
    with pytest.raises(ValueError, match=r"got \(12, 12\), take \(16, 16\)"):
        averaged(torch.randn(2, 1, 12, 12, dtype=torch.float64))


@pytest.fixture(scope="module")
def darcy(tmp_path_factory):
    """A data set and a surrogate of it."""
    path = tmp_path_factory.mktemp("data") / "darcy"
    recipe = replace(PRESETS["darcy-fno"], solver_resolution=17)
    generate(recipe, path, {"test": 3}, resolution=17, workers=1)
    operator = FNO(1, 1, (4, 4), width=8, depth=2, boundary="dirichlet", positions=True)
    scales = {"permeability": (7.5, 4.5), "pressure": (0.005, 0.003)}
    record = {"data": {"recipe": json.loads((path / "manifest.json").read_text())["recipe"]}}
    return path, Surrogate(
        operator, Grid.dirichlet(17, 17), DarcyRecipe.inputs, DarcyRecipe.outputs, scales, record
    ).eval()


def test_the_recipe_says_over_what_and_the_file_keeps_it(darcy, tmp_path):
    """Against the eight images of the square, made and undone with numpy."""
    path, plain = darcy
    good = {"factor": 1.0, "quantile": 0.9, "samples": 20, "resolution": [17, 17]}
    plain.record(calibration=good)
    averaged = plain.symmetrized()
    plain.record(calibration=None)
    assert averaged.provenance == plain.provenance
    assert (plain.symmetries, averaged.symmetries) == ((), ("reflections", "transposition"))
    given = open_dataset(path, "test")
    prediction = averaged.predict(given)
    again = Surrogate.load(averaged.save(tmp_path / "surrogate"))
    assert again.predict(given).pressure.equals(prediction.pressure)
    assert not plain.predict(given).pressure.equals(prediction.pressure)
    a, sums = given.permeability.values, np.zeros_like(given.pressure.values, dtype=float)
    for axes, swap in itertools.product([(), (1,), (2,), (1, 2)], [False, True]):
        image = np.flip(a, axes).swapaxes(1, 2) if swap else np.flip(a, axes)
        p = plain.predict(given.assign(permeability=(("sample", "y", "x"), image))).pressure.values
        sums += np.flip(p.swapaxes(1, 2) if swap else p, axes)
    np.testing.assert_allclose(prediction.pressure, sums / 8, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_from_the_command_line(darcy, tmp_path, capsys):
    path, plain = darcy
    plain.save(tmp_path / "surrogate")
    given = open_dataset(path, "test")[["permeability"]]
    given.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    files = [str(tmp_path / name) for name in ("surrogate", "in.nc", "out.nc")]
    assert main(["predict", *files, "--symmetrize"]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        expected = plain.symmetrized().predict(given)
        np.testing.assert_array_equal(found.pressure, expected.pressure)
    run = str(tmp_path / "surrogate")
    assert main(["evaluate", run, "--data", str(path), "--symmetrize", "--no-solver-timing"]) == 0
    out = tmp_path / "evaluation-symmetrized"
    record = json.loads((out / "evaluation.json").read_text())
    assert record["run"]["symmetries"] == ["reflections", "transposition"]
    assert "--symmetrize" in record["command"]
    truth = torch.from_numpy(open_dataset(path, "test").pressure.values)
    p = torch.from_numpy(plain.symmetrized().predict(given).pressure.values)
    error = relative_error(p[:, None].double(), truth[:, None].double(), plain.grid).mean()
    assert record["scores"][0]["relative_l2"] == pytest.approx(float(error), rel=1e-5)
    assert "averaged over" in (out / "report.html").read_text()


def test_a_certificate_bounds_the_average(darcy):
    path, plain = darcy
    given = open_dataset(path, "test")
    bounds = [certified(s, given).error_bound for s in (plain, plain.symmetrized())]
    assert np.isfinite(bounds[1]).all()
    assert not np.allclose(bounds[0], bounds[1])


def test_refuses_what_has_no_meaning(darcy, tmp_path):
    _, plain = darcy
    with pytest.raises(ValueError, match="got 'rotations'"):
        plain.symmetrized(["rotations"])
    with pytest.raises(ValueError, match="equation the predictions should obey is not known"):
        surrogate_of(*CASES[0][1:]).symmetrized()
    planet = {"data": {"recipe": PRESETS["swe-random"].configuration(), "window": [2, 2, 1]}}
    with pytest.raises(ValueError, match="declares no symmetry"):
        surrogate_of(*CASES[1][1:], planet).symmetrized()
    folder = plain.save(tmp_path / "surrogate")
    content = json.loads((folder / "surrogate.json").read_text())
    content.pop("self_sha256")
    for wrong in (["rotations"], 3, [[]], {"a": 1}):
        changed = {**content, "symmetries": wrong}
        changed["self_sha256"] = meaning_digest(changed)
        (folder / "surrogate.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"surrogate\.json"):
            Surrogate.load(folder)


@pytest.mark.slow
def test_leaves_as_one_onnx_file(tmp_path, monkeypatch):
    """Compared with torch at three resolutions when it is written."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    symmetries, grid, _ = CASES[0]
    shallow = FNO(1, 1, (4,), width=8, depth=1)
    surrogate = surrogate_of(grid, lambda: shallow).float().symmetrized(symmetries)
    file = surrogate.export_onnx(tmp_path / "averaged.onnx")
    session = onnxruntime.InferenceSession(file)
    u = torch.randn(2, 1, 23)
    (found,) = session.run(None, {"inputs": u.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), surrogate(u), rtol=0, atol=1e-4)
