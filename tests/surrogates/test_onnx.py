"""One graph for every resolution: ``torch.export`` and ONNX files against torch."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch

from sobolev import Axis, Grid, Surrogate
from sobolev.__main__ import main
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, Operator
from sobolev.surrogates import onnx as export

# What torch's exporter warns about by itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    """Sizes are symbols while a graph is traced, and the type checks take only whole numbers."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


INPUT, OUTPUT = Variable("force", "force", "N"), Variable("height", "height above ground", "m")
SCALES = {"force": (3.0, 2.0), "height": (-10.0, 5.0)}


@dataclass(frozen=True)
class Case:
    """A surrogate and the sizes at which its file must agree with torch; none is the grid's."""

    operator: Callable[[], Operator]
    grid: Grid
    sizes: tuple[tuple[int, ...], ...]
    least: tuple[int, ...]
    """Fewest nodes per axis on which all modes are there: more than 2m cells, padding counted."""

    def build(self) -> Surrogate:
        surrogate = Surrogate(self.operator(), self.grid, [INPUT], [OUTPUT], SCALES).eval()
        with torch.no_grad():  # Fourier layers that matter, as in a trained operator
            for p in surrogate.operator.parameters():
                if p.ndim > 2:
                    p.normal_(0.0, 0.1)
        return surrogate


CASES = {
    "periodic 2-d": Case(
        lambda: FNO(1, 1, (6, 6), width=8, depth=1), Grid.periodic(32, 32, length=3.0),
        ((32, 32), (48, 48), (65, 65), (14, 33)), (13, 13),
    ),
    "1-d": Case(
        lambda: FNO(1, 1, (16,), width=8, depth=2, positions=True), Grid.periodic(512),
        ((1024,), (8192,), (33,)), (33,),
    ),
    "dirichlet 2-d": Case(
        lambda: FNO(1, 1, (5, 4), width=8, depth=1, boundary="dirichlet", positions=True),
        Grid.dirichlet(21, 21), ((17, 17), (33, 33), (10, 8)), (10, 8),
    ),
    "mixed 3-d": Case(
        lambda: FNO(1, 1, (2, 3, 2), width=6, depth=1, boundary=["neumann", "periodic", "dirichlet"]),
        Grid(Axis("z", 8, boundary="neumann"), Axis("y", 9), Axis("x", 9, boundary="dirichlet")),
        ((8, 9, 10), (4, 7, 5), (13, 12, 11)), (4, 7, 5),
    ),
}  # fmt: skip


def field(sizes: tuple[int, ...], batch: int) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn(batch, 1, *sizes)


def deviation(found: np.ndarray, expected: torch.Tensor) -> float:
    wanted = expected.detach().numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_file_serves_every_resolution_to_1e_5_of_torch(case, tmp_path):
    surrogate = case.build().train()
    file = surrogate.export_onnx(tmp_path / "new" / "surrogate.onnx")
    assert [f.name for f in file.parent.iterdir()] == ["surrogate.onnx"]
    assert surrogate.training
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch, sizes in enumerate(case.sizes, start=1):
        u = field(sizes, batch)
        (found,) = session.run(["outputs"], {"inputs": u.numpy()})
        assert found.dtype == np.float32
        assert deviation(found, surrogate.eval()(u)) < 1e-5, sizes
    stated = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert stated["least_sizes"] == list(case.least)
    folder = surrogate.save(tmp_path / "folder")
    written = json.loads((folder / "surrogate.json").read_text())
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert stated["sha256"] == weights
    for name in ("operator", "grid", "inputs", "outputs", "provenance"):
        assert stated[name] == written[name]
    names = ["batch", 1, *case.grid.dims]
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("inputs", names)]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("outputs", names)]


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES["periodic 2-d"], CASES["dirichlet 2-d"]])
def test_torch_export_takes_other_sizes_and_refuses_those_that_lack_modes(case):
    surrogate = case.build()
    graph = export.exported(surrogate).module()
    for batch, sizes in enumerate(case.sizes, start=1):
        u = field(sizes, batch)
        assert deviation(graph(u).detach().numpy(), surrogate(u)) < 1e-6
    for axis in range(2):
        sizes = list(case.least)
        sizes[axis] -= 1
        with pytest.raises(AssertionError, match="Guard failed"):
            graph(field(tuple(sizes), 1))


def small(operator: Operator | None = None) -> Surrogate:
    operator = operator or FNO(1, 1, (3,), width=4, depth=1)
    return Surrogate(operator, Grid.periodic(16), [INPUT], [OUTPUT], SCALES).eval()


@pytest.mark.slow
def test_a_graph_that_differs_from_torch_is_not_put_in_place(tmp_path, monkeypatch):
    (tmp_path / "s.onnx").write_text("older")
    plain = export.exported

    def spoiled(surrogate, sizes):
        other = copy.deepcopy(surrogate)
        other.output_mean += 1e-3
        return plain(other, sizes)

    monkeypatch.setattr(export, "exported", spoiled)
    with pytest.raises(ArithmeticError, match=r"differs from torch by .* at 7 nodes"):
        small().export_onnx(tmp_path / "s.onnx")
    assert [f.name for f in tmp_path.iterdir()] == ["s.onnx"]
    assert (tmp_path / "s.onnx").read_text() == "older"


def compare(surrogate: Surrogate, offset: float, monkeypatch) -> None:
    """Compare torch with a graph that gives the same plus ``offset``."""

    class Session:
        def __init__(self, *_, **__): ...

        @torch.no_grad()
        def run(self, names, feed):
            return [(surrogate(torch.from_numpy(feed["inputs"])) + offset).numpy()]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    export._compare(Path("s.onnx"), surrogate, (2, 1, 9))


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_a_large_mean_hides_no_difference(boundary, monkeypatch):
    """A hundredth of a standard deviation where the mean is 1000 of them, and zero on the border."""
    operator = FNO(1, 1, (3,), width=4, depth=1, boundary=boundary)
    grid = Grid(Axis("x", 17, boundary=boundary))
    scales = {"force": (0.0, 1.0), "height": (1e5, 100.0)}
    surrogate = Surrogate(operator, grid, [INPUT], [OUTPUT], scales).eval()
    compare(surrogate, 2**-7, monkeypatch)  # the spacing of float32 numbers at 1e5
    with pytest.raises(
        ArithmeticError, match=r"differs from torch by 1\.0e-02 standard deviations"
    ):
        compare(surrogate, 1.0, monkeypatch)


def test_outputs_of_zero_can_be_compared(monkeypatch):
    surrogate = small()
    surrogate.output_mean.zero_()
    for p in surrogate.operator.project.parameters():
        torch.nn.init.zeros_(p)
    compare(surrogate, 0.0, monkeypatch)


@pytest.mark.slow
def test_a_grid_with_far_fewer_modes_than_the_operator_does(tmp_path):
    operator = FNO(1, 1, (12,), width=4, depth=1)
    surrogate = Surrogate(operator, Grid.periodic(8), [INPUT], [OUTPUT], SCALES).eval()
    least = export._program_and_least_sizes(surrogate)[1]
    assert least == [25]  # more than 2 · 12


class Rigid(FNO):
    """An operator that does not say that it can be exported."""

    exportable = False


class Bound(FNO):
    """An operator that says so, and cannot: it asks for the size modulo 3."""

    def forward(self, u, size=None):
        return super().forward(u, size) * (2.0 if u.shape[-1] % 3 == 0 else 1.0)


@pytest.mark.slow
def test_operators_that_cannot_be_exported_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"this Rigid cannot be exported .* FNO.* can\."):
        small(Rigid(1, 1, (3,), width=4, depth=1)).export_onnx(tmp_path / "s.onnx")
    with pytest.raises(ValueError, match="takes only some resolutions"):
        small(Bound(1, 1, (3,), width=4, depth=1)).export_onnx(tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_write(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "exported", None)  # refused before any work
    with pytest.raises(IsADirectoryError, match="is a folder; name the file"):
        small().export_onnx(tmp_path)


def test_the_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"need onnxscript, .*pip install 'sobolev\[onnx\]'"):
        small().export_onnx(tmp_path / "s.onnx")


@pytest.mark.slow
def test_the_command_line_makes_a_double_surrogate_a_float32_file(tmp_path, capsys):
    surrogate = small().double()
    surrogate.save(tmp_path / "run" / "surrogate")
    assert main(["onnx", str(tmp_path / "run"), str(tmp_path / "s.onnx")]) == 0
    assert "at least 7 nodes" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(
        str(tmp_path / "s.onnx"), providers=["CPUExecutionProvider"]
    )
    for batch, size in enumerate((7, 20, 33), start=1):
        u = field((size,), batch)
        (found,) = session.run(None, {"inputs": u.numpy()})
        assert found.dtype == np.float32
        assert deviation(found, surrogate(u.double())) < 1e-5
    assert surrogate.input_mean.dtype == torch.float64
    assert main(["onnx", str(tmp_path / "nothing"), str(tmp_path / "s.onnx")]) == 2
    assert "no surrogate folder" in capsys.readouterr().err
