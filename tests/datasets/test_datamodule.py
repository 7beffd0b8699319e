"""Batches: which samples, in which order, at which nodes – and symmetries that are symmetries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sobolev.datasets import Manifest, OperatorDataModule, open_dataset
from sobolev.datasets.datamodule import turned
from sobolev.solvers import Darcy


def test_batches_hold_every_training_field_once(burgers_data):
    module = OperatorDataModule(burgers_data, batch_size=7)
    inputs, outputs = (torch.cat(parts) for parts in zip(*module.train_dataloader(), strict=True))
    assert inputs.shape == outputs.shape == (24, 1, 64)
    stored = open_dataset(burgers_data)
    order = [
        int(np.flatnonzero((stored.initial_velocity.values == u.numpy()).all(-1))[0])
        for u in inputs[:, 0]
    ]
    assert sorted(order) == list(range(24))
    assert order != list(range(24))
    np.testing.assert_array_equal(outputs[:, 0], stored.velocity.values[order])


def test_order_depends_on_seed_and_epoch_alone(burgers_data):
    def order(seed, epoch):
        loader = OperatorDataModule(burgers_data, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return list(loader.sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_without_a_validation_split_the_last_training_samples_are_held_out(darcy_data):
    module = OperatorDataModule(darcy_data, valid_fraction=0.2)
    stored = torch.from_numpy(open_dataset(darcy_data).pressure.values)
    assert torch.equal(module.pairs("train").outputs[:, 0], stored[:16])
    assert torch.equal(module.pairs("valid").outputs[:, 0], stored[16:])
    assert len(module.pairs("test")) == 4


def test_statistics_are_those_of_the_samples_that_are_trained_on(darcy_data):
    module = OperatorDataModule(darcy_data, valid_fraction=0.2)
    values = open_dataset(darcy_data).pressure.values[:16].astype(float)
    mean, deviation = module.statistics["pressure"]
    assert mean == pytest.approx(values.mean(), rel=1e-9)
    assert deviation == pytest.approx(values.std(), rel=1e-9)


def test_resolution_picks_nodes(darcy_data):
    module = OperatorDataModule(darcy_data, resolution=9)
    assert module.grid.shape == (9, 9)
    stored = torch.from_numpy(open_dataset(darcy_data, "test").pressure.values)
    assert torch.equal(module.pairs("test").outputs[:, 0], stored[:, ::2, ::2])
    with pytest.raises(ValueError, match="can be subsampled to 17, 9, 5, 3"):
        OperatorDataModule(darcy_data, resolution=10)


def test_turned_solutions_are_solutions_of_the_turned_problem(darcy_data):
    """All eight symmetries of the square; the five-point residual of the stored float32 fields
    stays what it was."""
    manifest = Manifest.read(darcy_data)
    a, u = (
        torch.from_numpy(open_dataset(darcy_data)[name].values).double()
        for name in ("permeability", "pressure")
    )
    solved = Darcy().solve(a, manifest.grid)
    seen = set()
    for coins in itertools.product((0, 1), repeat=3):
        ta, tu = (turned(field, manifest.grid, manifest.symmetries, coins) for field in (a, solved))
        assert Darcy().residual(tu, ta, manifest.grid).norm() < 1e-6
        seen.add(tuple(tu[0].flatten().tolist()))
    assert len(seen) == 8
    assert u.shape == solved.shape


def test_reflected_burgers_solutions_are_solutions(burgers_data):
    """u(x) → −u(−x): the solver applied to the turned input gives the turned output."""
    module = OperatorDataModule(burgers_data)
    recipe, grid = module.manifest.build_recipe(), module.grid
    fine = recipe.grid(recipe.solver_resolution)
    inputs = recipe.draw([np.random.default_rng(0)])
    outputs = recipe.solve(inputs, fine)
    a, u = (turned(field, grid, module.manifest.symmetries, (1, 0)) for field in (inputs, outputs))
    assert torch.allclose(recipe.solve(a, fine), u, atol=1e-12)
    assert not torch.allclose(a, inputs)


def test_augmenting_where_nothing_is_symmetric_is_refused(burgers_data, monkeypatch):
    read = Manifest.read.__func__

    def without_symmetries(cls, path):
        manifest = read(cls, path)
        manifest.symmetries = []
        return manifest

    monkeypatch.setattr(Manifest, "read", classmethod(without_symmetries))
    with pytest.raises(ValueError, match="declares no symmetry"):
        OperatorDataModule(burgers_data, augment=True)


def test_bad_options_are_refused(burgers_data):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        OperatorDataModule(burgers_data, batch_size=0)
    with pytest.raises(ValueError, match="train_samples must be at least 1"):
        OperatorDataModule(burgers_data, train_samples=0)
