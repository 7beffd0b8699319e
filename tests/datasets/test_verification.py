"""What ``verify`` finds: broken physics under a right checksum, and samples that their seeds do not
give."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

import sobolev.datasets.generating.generation as generation
from sobolev.datasets import (
    Manifest,
    NavierStokesRecipe,
    OperatorDataModule,
    generate,
    open_dataset,
    verify,
)
from sobolev.datasets.store.manifest import Shard
from sobolev.datasets.store.whole_files import file_digest
from sobolev.solvers import SolutionError

RECIPE = NavierStokesRecipe(viscosity=0.05, time=0.3, interval=0.1, solver_resolution=16)


@pytest.fixture
def drawn(tmp_path):
    return generate(RECIPE, tmp_path / "flow", {"train": 10, "test": 3}, progress=False)


def forge(path, change, name="vorticity"):
    """Change a shard and put its new checksum into the manifest, as a careful forger would."""
    manifest = Manifest.read(path)
    shard = manifest.splits["train"][0]
    with h5py.File(path / shard.file, "r+") as file:
        file[name][...] = change(file[name][...])
    forged = {**vars(shard), "sha256": file_digest(path / shard.file)}
    manifest.splits["train"][0] = Shard(**forged)
    manifest.write(path)


@pytest.mark.slow
def test_a_good_data_set_has_no_problem(drawn):
    assert verify(drawn, redraw=2) == []


def test_broken_physics_is_found_under_a_right_checksum(drawn):
    def spoil(values):
        values[3] += 0.5
        return values

    forge(drawn, spoil)
    problems = verify(drawn)
    assert len(problems) == 1
    assert "not so: the mean vorticity vanishes (samples 3; defect" in problems[0]


@pytest.mark.slow
def test_samples_that_the_seeds_do_not_give_are_found(drawn):
    forge(drawn, lambda values: values * np.float32(1 + 1e-6))
    assert verify(drawn) == []
    problems = verify(drawn, redraw=10)
    assert sum("should be equal bit for bit" in problem for problem in problems) == 10


@pytest.mark.slow
def test_other_versions_are_held_to_a_tolerance(drawn):
    manifest = Manifest.read(drawn)
    shards = [Shard(**{**vars(s), "versions": {"torch": "1.0"}}) for s in manifest.splits["train"]]
    manifest.splits["train"] = shards
    manifest.write(drawn)
    forge(drawn, lambda values: values * np.float32(1 + 1e-6))
    assert verify(drawn, redraw=10) == []
    forge(drawn, lambda values: values * np.float32(1.1))
    problems = verify(drawn, redraw=10)
    assert sum("allowed for other versions" in problem for problem in problems) == 10


def test_error_estimates_are_stored_for_every_64th_sample(drawn):
    for split in ("train", "test"):
        estimates = open_dataset(drawn, split).error_estimate.values
        assert 0 < estimates[0] < 1e-2
        assert np.isnan(estimates[1:]).all()
    card = (drawn / "README.md").read_text()
    assert "the largest of 2 estimates is" in card
    assert (
        "sobolev generate ns-fno-1e-3 --set viscosity=0.05" in card
    )  # the nearest preset, changed
    assert "viscosity" in card


def test_failed_samples_are_kept_flagged_and_not_trained_on(tmp_path, monkeypatch):
    solve = NavierStokesRecipe.solve

    def failing(self, inputs, grid):
        outputs = solve(self, inputs, grid)
        status = torch.zeros(len(inputs), dtype=torch.int8)
        if len(inputs) > 1:  # not where errors are estimated
            status[1], outputs[1, :, 2:] = 1, torch.nan
        raise SolutionError("sample 1 blew up", outputs, status)

    monkeypatch.setattr(NavierStokesRecipe, "solve", failing)
    path = generate(RECIPE, tmp_path / "d", {"train": 10}, progress=False)
    monkeypatch.undo()
    data = open_dataset(path)
    assert data.status.values.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert data.status.attrs["flag_meanings"] == "solved blown_up unresolved"
    assert np.isfinite(data.vorticity.values[1, :2]).all()
    assert np.isnan(data.vorticity.values[1, 2:]).all()
    assert verify(path) == []
    assert "| failed samples | 2 |" in (path / "README.md").read_text()
    module = OperatorDataModule(path, valid_fraction=0.2)
    assert [len(module.pairs(split).samples) for split in ("train", "valid")] == [7, 1]
    assert module.pairs("train").inputs.isfinite().all()


def test_redrawing_foreign_data_is_refused(drawn):
    manifest = Manifest.read(drawn)
    manifest.recipe = {"class": "Imported"}
    manifest.write(drawn)
    assert verify(drawn) == []
    with pytest.raises(ValueError, match="cannot be drawn again here"):
        verify(drawn, redraw=1)


def test_versions_name_what_draws():
    assert set(generation.versions_of_data()) == {
        *("processor", "python", "sobolev", "torch", "torch-harmonics", "numpy", "scipy", "h5py")
    }
