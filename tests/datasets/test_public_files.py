"""Public files of others: each arrives as what it is, or is refused with what is missing.

They lie beside the project, in shared/data/foreign, with their sources; without them the tests skip.
The table of docs/data.md says the same in words.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
import xarray as xr

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import (
    Manifest,
    OperatorDataModule,
    open_dataset,
    scattered_to_grid,
    store_fields,
    verify,
)
from sobolev.grids import Axis, Grid, SphereGrid
from sobolev.grids.spherical_vectors import vorticity_and_divergence
from sobolev.operators import SFNO
from sobolev.solvers.elliptic.part_of_box import solve_in_domain

FILES = Path(__file__).parents[3] / "shared" / "data" / "foreign"
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="the public files are not there")
CIRCLE = ["--boundary", "periodic"]
WALLS = ["--boundary", "dirichlet"]
RADIUS = 6.3712e6  # of the earth, in windspharm's references


def imported(tmp_path: Path, *arguments: str) -> tuple[Manifest, xr.Dataset]:
    """Import by the command line; file names are those in ``FILES``."""
    path = tmp_path / "data"
    words = [str(FILES / word) if "/" in word else word for word in arguments]
    files = [word for word in words if "/" in word]
    options = [word for word in words if "/" not in word]
    assert main(["import", *files, str(path), *options]) == 0
    assert verify(path) == []
    return Manifest.read(path), open_dataset(path).load()


def refused(tmp_path: Path, capsys, *arguments: str) -> str:
    """Return the one line of a refusal."""
    words = [str(FILES / word) if "/" in word else word for word in arguments]
    assert main(["import", words[0], str(tmp_path / "data"), *words[1:]]) == 2
    assert not (tmp_path / "data" / "manifest.json").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "options", "axis", "frames", "residual"),
    [
        ("pinns/burgers_shock.mat", ["--outputs", "usol", *WALLS], Axis("x", 256, 2.0, -1.0, "dirichlet"), 100, None),
        ("pinns/AC.mat", ["--outputs", "uu", *CIRCLE], Axis("x", 512, 2.0, -1.0), 201, "allen-cahn"),
        ("pinns/KdV.mat", ["--outputs", "uu", *CIRCLE], Axis("x", 512, 2.0, -1.0), 201, "kdv"),
        ("pinns/KS.mat", ["--outputs", "uu", *CIRCLE], Axis("x", 512, 2.0, -1.0), 201, None),
        ("pinns/NLS.mat", ["--outputs", "uu", *CIRCLE], Axis("x", 256, 10.0, -5.0), 201, "nls"),
        ("deephpms/KS_chaotic.mat", ["--outputs", "usol", *CIRCLE], Axis("x", 511, 100.531, 0.0), 251, "ks"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)  # fmt: skip
def test_matlab_files_obey_their_equations_on_the_grid_found(
    tmp_path, capsys, file, options, axis, frames, residual
):
    """The equation holds only on the right length, in the right order of the axes, with the right times."""
    assert "boundary of axis 'x' is not known" in refused(tmp_path, capsys, file, *options[:2])
    manifest, found = imported(tmp_path, file, *options)
    (there,) = manifest.grid.axes
    assert (there.size, there.boundary, len(manifest.times)) == (axis.size, axis.boundary, frames)
    assert (there.length, there.origin) == pytest.approx((axis.length, axis.origin), rel=1e-4)
    if residual is not None:
        assert relative_residual(residual, found, there) < 0.02


def relative_residual(equation: str, found: xr.Dataset, axis: Axis) -> float:
    """Return the residual over the rate of change, in the middle of the trajectory."""
    names = list(found.data_vars)
    frames = found[names[0]].values[0].astype(complex)
    if len(names) == 2:
        frames = frames + 1j * found[names[1]].values[0]
    times = found.time.values
    k = 2 * math.pi / axis.length * np.fft.fftfreq(axis.size, 1 / axis.size)
    i = len(times) // 2
    u = frames[i]
    step = times[i + 1] - times[i]
    rate = (8 * (frames[i + 1] - frames[i - 1]) - (frames[i + 2] - frames[i - 2])) / (12 * step)

    def derivative(values, order):
        return np.fft.ifft((1j * k) ** order * np.fft.fft(values))

    right = {
        "allen-cahn": lambda: 1e-4 * derivative(u, 2) - 5 * u**3 + 5 * u,
        "kdv": lambda: -u * derivative(u, 1) - 0.0025 * derivative(u, 3),
        "nls": lambda: 0.5j * derivative(u, 2) + 1j * np.abs(u) ** 2 * u,
        "ks": lambda: -u * derivative(u, 1) - derivative(u, 2) - derivative(u, 4),
    }[equation]()
    return float(np.linalg.norm(rate - right) / np.linalg.norm(rate))


def test_neuralops_darcy_lies_between_two_walls_one_of_which_is_left_out():
    """Its nodes are i/16: so say the mean pressure's zero and symmetry, which the files do not."""
    pressure = torch.load(FILES / "neuralop/darcy_train_16.pt", weights_only=True)["y"]
    for axis in (1, 2):
        profile = pressure.double().mean((0, 3 - axis))
        inside = profile[1:]
        slope = (profile[1] - profile[0]).abs()
        assert profile[0].abs() < 0.03 * slope  # of a cell
        assert (inside - inside.flip(0)).abs().max() < 0.04 * slope


def test_neuralops_darcy_is_known_and_needs_its_grid(tmp_path, capsys):
    file = "neuralop/darcy_train_16.pt"
    assert "boundary of axis 'x' is not known" in refused(tmp_path, capsys, file)
    manifest, found = imported(tmp_path, file, *CIRCLE, "--length", "1")
    assert manifest.grid == Grid.periodic(16, 16)
    raw = torch.load(FILES / file, weights_only=True)
    np.testing.assert_array_equal(found["output"].values, raw["y"].numpy().transpose(0, 2, 1))


def test_neuralops_burgers_lacks_its_times_and_its_length(tmp_path, capsys):
    file = "neuralop/burgers_test_16.pt"
    assert "found x (400, 16), y (400, 17, 16), visc (1, 1)" in refused(tmp_path, capsys, file)
    circle = ["--boundary", "periodic", "--length", "1"]
    said = refused(tmp_path, capsys, file, "--outputs", "y", "--dims", "y=sample,time,x", *circle)
    assert "--coordinates time=FIRST:LAST" in said
    manifest, found = imported(
        tmp_path, file, "--outputs", "y", "--coordinates", "time=0:1", *circle
    )
    assert manifest.grid == Grid.periodic(16)
    assert manifest.times == pytest.approx(np.linspace(0, 1, 17))
    raw = torch.load(FILES / file, weights_only=True)
    np.testing.assert_array_equal(found.y_field.values, raw["y"].numpy())
    np.testing.assert_array_equal(found.y_field.values[:, 0], raw["x"].numpy())


def test_a_mesh_is_refused_where_its_coordinates_passed_for_fields(tmp_path, capsys):
    file = "pina/holed_poisson.pt"
    said = refused(tmp_path, capsys, file, "--boundary", "periodic", "--length", "1")
    assert all(name in said for name in ("edge_index", "triang", "mu", "u beside x and y"))
    said = refused(
        tmp_path, capsys, file, "--inputs", "x", "--outputs", "u", "--boundary", "periodic"
    )
    assert "unstructured mesh (edge_index, triang)" in said


def test_the_holed_poisson_problem_on_a_grid_is_what_our_own_solver_gives(tmp_path):
    raw = torch.load(FILES / "pina/holed_poisson.pt", weights_only=True)
    raw = {name: values.numpy() for name, values in raw.items()}
    few = slice(0, 4)
    gridded = scattered_to_grid(
        raw["x"][:, few], raw["y"][:, few], raw["triang"], {"u": raw["u"][:, few]}, nodes=(121, 121)
    )
    store_fields(
        gridded, tmp_path / "d", outputs="u", mask="nan", boundary="dirichlet", progress=False
    )
    manifest, found = Manifest.read(tmp_path / "d"), open_dataset(tmp_path / "d").load()
    assert (manifest.mask, [v["name"] for v in manifest.inputs]) == ("mask", ["mask"])
    assert verify(tmp_path / "d") == []
    domain = torch.from_numpy(found["mask"].values == 1)
    ours = solve_in_domain(
        0.1 * torch.ones(domain.shape).double(), domain, Grid.dirichlet(121, 121), 1.0
    )
    error = np.linalg.norm(ours.numpy() - found.u.values) / np.linalg.norm(found.u.values)
    assert error < 0.06  # holes end between nodes


def test_winds_of_two_files_give_spherepacks_vorticity(tmp_path):
    regular = FILES / "windspharm" / "regular"
    for name in ("uwnd", "vwnd", "vrt", "div"):
        shutil.copy(regular / f"{name}.ref.npy", tmp_path / f"{name}.npy")
    path = tmp_path / "data"
    names = ("uwnd", "vwnd", "vrt", "div")
    files = [str(tmp_path / f"{name}.npy") for name in names]
    options = ["--inputs", "vrt,div", "--outputs", "uwnd,vwnd", "--radius", str(RADIUS)]
    options += [word for name in names for word in ("--dims", f"{name}=lat,lon")]
    options += ["--coordinates", "lat=90:-90", "--coordinates", "lon=0:357.5"]
    assert main(["import", *files, str(path), *options]) == 0
    manifest, found = Manifest.read(path), open_dataset(path).load()
    assert manifest.grid == SphereGrid(73, 144, "equiangular", RADIUS)
    # 73 rings with poles resolve degrees to 36 by quadrature, and all that SPHEREPACK sees once
    # their double Fourier series is evaluated between them
    fine = SphereGrid(145, 288, "equiangular", RADIUS)
    winds = np.stack([refined_winds(found[name].values[0]) for name in ("uwnd", "vwnd")])
    vorticity, _ = vorticity_and_divergence(torch.from_numpy(winds), fine)
    low = fine.shells()[1] <= 21  # the reference's truncation
    found_there = fine.from_modes(fine.to_modes(vorticity) * low).numpy()[::2, ::2]
    right = np.load(regular / "vrt_trunc.ref.npy")
    assert np.linalg.norm(found_there - right) / np.linalg.norm(right) <= 1e-5
    # the last degrees hang on how the highest wave around a ring is taken
    whole = np.linalg.norm(vorticity.numpy()[::2, ::2] - found.vrt[0]) / np.linalg.norm(
        found.vrt[0]
    )
    assert whole <= 3e-4


def refined_winds(component: np.ndarray) -> np.ndarray:
    """Return a component of a wind on twice the rings and nodes, by its double Fourier series.

    Beyond a pole the other side of the globe follows, where east and north point the other way.
    """
    over_the_pole = -np.roll(component[-2:0:-1], component.shape[1] // 2, axis=1)
    around = np.concatenate([component, over_the_pole]).astype(float)
    return scipy.signal.resample(scipy.signal.resample(around, 288, axis=0), 288, axis=1)[:145]


def test_ncep_winds_come_as_a_year_of_months(tmp_path):
    files = ["windspharm/uwnd_mean.nc", "windspharm/vwnd_mean.nc"]
    manifest, found = imported(tmp_path, *files, "--outputs", "uwnd,vwnd")
    assert manifest.grid == SphereGrid(73, 144, "equiangular")
    assert (manifest.times[:3], manifest.time_units) == ([0.0, 31.0, 59.0], "days")
    assert found.uwnd.attrs["units"] == "m/s"
    with xr.open_dataset(FILES / files[0], engine="h5netcdf", decode_times=False) as raw:
        np.testing.assert_array_equal(found.uwnd[0], raw.uwnd)
        np.testing.assert_allclose(found.lat, raw.latitude)


def test_weather_is_predicted_from_north_to_south_with_its_poles(tmp_path):
    file = "era5/era5_2deg_7days.nc"
    options = ["--inputs", "msl", "--outputs", "u10,v10", "--sample", "time"]
    manifest, found = imported(tmp_path, file, *options)
    assert manifest.grid == SphereGrid(91, 180, "equiangular")
    with xr.open_dataset(FILES / file, engine="h5netcdf", decode_times=False) as raw:
        np.testing.assert_array_equal(found.u10, raw.u10)
        units = raw.msl.attrs["units"]
    assert found.msl.attrs["units"] == units
    data = OperatorDataModule(tmp_path / "data")
    operator = SFNO(1, 2, grid=data.grid, width=4, depth=1)
    surrogate = Surrogate(operator, data.grid, data.inputs, data.outputs, data.statistics)
    prediction = surrogate.predict(found.isel(sample=slice(0, 2)))
    np.testing.assert_allclose(prediction.lat, np.linspace(90, -90, 91), atol=1e-9)
    assert prediction.u10.attrs["units"] == found.u10.attrs["units"]


def test_a_week_of_weather_is_a_trajectory_of_uneven_hours(tmp_path):
    manifest, _ = imported(tmp_path, "era5/era5_2deg_7days.nc", "--outputs", "u10,v10")
    assert manifest.time_units == "hours"
    assert set(np.diff(manifest.times)) == {7.0, 8.0}
    assert OperatorDataModule(tmp_path / "data").interval is None
