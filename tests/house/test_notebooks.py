"""Every notebook runs from its first to its last cell."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient
from support.imports import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_run(notebook, tmp_path):
    book = nbformat.read(ROOT / "notebooks" / notebook, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
