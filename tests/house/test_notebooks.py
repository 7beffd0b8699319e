"""Every notebook runs from its first to its last cell, at smaller sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from support.imports import ROOT

SMALL: dict[str, dict[str, Any]] = {
    "datasets": {
        "COUNT": 2, "BURGERS_STEPS": 20, "DARCY_NODES": 17, "FLOW_NODES": 16, "FLOW_TIME": 6.0,
        "DECAY_NODES": 48, "LAYER_NODES": 24, "STORED_NODES": 16, "LAYER_HOURS": 4,
    },
    "equations": {"LINE_NODES": 128, "PLANE_NODES": 64, "BALL_NODES": 48, "SHARE": 0.01},
    "inverse": {"NODES": 32, "FLOW_STEPS": 2, "MEDIUM_NODES": 9, "MEDIUM_STEPS": 2},
    "operators": {
        "EPOCHS": 1, "FLOW": {"train": 3, "valid": 1, "test": 6}, "FLOW_TIME": 8.0,
        "WIDTHS": {"FNO": 4, "G-FNO": 2, "MgNO": 4, "SpecBoost": 4, "space and time": 2, "sphere": 4},
        "LAYER": {"train": 2, "valid": 1, "test": 1}, "LAYER_HOURS": 5,
    },
    "quickstart": {"SAMPLES": {"train": 32, "valid": 4, "test": 4}, "EPOCHS": 2, "WIDTH": 8},
    "refinement": {
        "BURGERS": {"train": 40, "test": 4}, "FLOW": {"train": 4, "test": 1}, "EPOCHS": (2, 2),
        "WIDTHS": (8, 8, 4), "TOLERANCES": (1e-1, 1e-2),
    },
    "your_own_data": {"RUNS": 20, "NODES": (12, 18), "EPOCHS": 1, "WIDTH": 4},
}  # fmt: skip
"""For the names that a notebook sets in its cell of parameters."""
QUICK_LOOK = "%matplotlib inline\n%config InlineBackend.print_figure_kwargs = {'bbox_inches': None, 'dpi': 10}"


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all notebooks, which import the same packages."""
    manager = KernelManager()
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_run(name, kernel, tmp_path):
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (sizes,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    given: dict[str, Any] = {}
    exec(sizes.source, given)
    assert SMALL[name].keys() <= given.keys()
    sizes.source += "".join(f"\n{key} = {value!r}" for key, value in SMALL[name].items())
    book.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd {tmp_path}\n{QUICK_LOOK}"))
    client = NotebookClient(book, timeout=300, km=kernel)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
