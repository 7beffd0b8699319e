"""Batches: which samples, in which order, at which nodes – and symmetries that are symmetries."""

from __future__ import annotations

import itertools
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
import xarray as xr

from sobolev.datasets import Manifest, OperatorDataModule, open_dataset
from sobolev.datasets.loading.samplers import SHUFFLED_SHARDS, EpochSampler
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.grids.symmetries import turned
from sobolev.solvers import Darcy


@pytest.mark.slow
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
    recipe, grid = recipe_from(module.manifest.recipe), module.grid
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
    with pytest.raises(ValueError, match="restriction must be subsample or spectral"):
        OperatorDataModule(burgers_data, restriction="average")


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "shards"])
def test_windows_are_cut_from_every_trajectory(flow_data, in_memory):
    module = OperatorDataModule(flow_data, window=(3, 2), in_memory=in_memory, valid_fraction=0.2)
    w = torch.from_numpy(open_dataset(flow_data).vorticity.values)
    items = module.pairs("train")
    assert len(items) == 10 * 4  # 8 frames hold 4 windows of 5
    inputs, outputs = items[4 * 7 + 2]
    assert torch.equal(inputs, w[7, 2:5])
    assert torch.equal(outputs, w[7, 5:7])
    assert (module.in_channels, module.out_channels) == (3, 2)
    names = ["vorticity_lag2", "vorticity_lag1", "vorticity_lag0"]
    assert [v.name for v in module.inputs] == names
    assert [v.name for v in module.outputs] == ["vorticity_lead1", "vorticity_lead2"]
    mean, deviation = module.statistics["vorticity_lag1"]
    assert mean == pytest.approx(w[:10].double().mean().item(), abs=1e-9)
    assert deviation == pytest.approx(w[:10].double().std(correction=0).item(), rel=1e-9)


def test_strided_windows_skip_frames(flow_data):
    module = OperatorDataModule(flow_data, window=(2, 1, 3))
    w = torch.from_numpy(open_dataset(flow_data, "test").vorticity.values)
    inputs, outputs = module.pairs("test")[:]
    assert torch.equal(inputs[3], w[1, [1, 4]])
    assert torch.equal(outputs[3], w[1, [7]])
    with pytest.raises(ValueError, match=r"a window of 10 frames .* trajectories of 8"):
        OperatorDataModule(flow_data, window=(2, 2, 3)).pairs("train")
    with pytest.raises(ValueError, match="must be at least 1"):
        OperatorDataModule(flow_data, window=(0, 1))


def test_maps_have_no_windows(burgers_data):
    with pytest.raises(ValueError, match="holds no trajectories, of which a window could be taken"):
        OperatorDataModule(burgers_data, window=(10, 5))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_from_memory(flow_data, workers):
    """A small set lies in one shard, so that both orders are the same permutation."""
    kept, streamed = (
        OperatorDataModule(flow_data, batch_size=7, in_memory=in_memory, workers=n)
        for in_memory, n in ((True, 0), (False, workers))
    )
    pairs = zip(kept.train_dataloader(), streamed.train_dataloader(), strict=True)
    for (a, b), (c, d) in pairs:
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize("in_memory", [False, True])
def test_items_go_to_other_processes_without_their_module(flow_data, in_memory):
    """Where processes are not forked, loader processes receive them as a pickle; a trainer has none."""
    module = OperatorDataModule(flow_data, in_memory=in_memory, resolution=8)
    module.trainer = lambda: None
    items = module.pairs("test")
    received = pickle.loads(ForkingPickler.dumps(items))
    assert torch.equal(received.inputs, items.inputs)
    assert torch.equal(received.outputs, items.outputs)


def test_spectral_restriction_cuts_modes(flow_data):
    module = OperatorDataModule(flow_data, resolution=8, restriction="spectral")
    w = torch.from_numpy(open_dataset(flow_data, "test").vorticity.values)
    expected = module.stored.resample(w[:, 0], module.grid)
    assert torch.allclose(module.pairs("test").inputs[::7, 0], expected, atol=1e-6)
    picked = OperatorDataModule(flow_data, resolution=8).pairs("test").inputs[::7, 0]
    assert torch.equal(picked, w[:, 0, ::2, ::2])
    assert not torch.allclose(picked, expected, atol=1e-3)
    with pytest.raises(ValueError, match=r"16 × 16 nodes cannot be restricted to 32 × 32"):
        OperatorDataModule(flow_data, resolution=32, restriction="spectral")


def test_grouped_orders_mix_a_few_shards_at_a_time():
    groups = [5] * 20
    sampler = EpochSampler(100, 0, groups)
    order = list(sampler)
    assert sorted(order) == list(range(100))
    first = {item // 5 for item in order[: 5 * SHUFFLED_SHARDS]}
    assert len(first) == SHUFFLED_SHARDS
    assert [item // 5 for item in order[:5]] != [order[0] // 5] * 5
    sampler.set_epoch(1)
    assert list(sampler) != order


@pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec:FutureWarning"
)  # Lightning with this torch
def test_one_step_of_a_flow_can_be_learned_and_judged(flow_data, tmp_path):
    """Four frames in, one out: the channels' meaning goes from the data module to the surrogate."""
    import lightning

    from sobolev.operators import FNO
    from sobolev.training import OperatorModule

    data = OperatorDataModule(flow_data, batch_size=8, window=(4, 1), augment=False)
    module = OperatorModule(FNO(4, 1, modes=(4, 4), width=8, depth=2), data)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert [v.name for v in module.surrogate.inputs][-1] == "vorticity_lag0"
    assert module.surrogate.provenance["data"]["window"] == [4, 1, 1]
    frames = open_dataset(flow_data, "test").vorticity
    named = {f"vorticity_lag{3 - i}": frames.isel(time=i, drop=True) for i in range(4)}
    assert module.surrogate.predict(xr.Dataset(named)).vorticity.shape == (3, 16, 16)
