"""Modes that grow during training."""

from __future__ import annotations

import jaxtyping
import lightning
import pytest
import torch
from torch import nn

from sobolev.datasets import OperatorDataModule
from sobolev.operators import FNO
from sobolev.training import IncrementalModes, OperatorModule


class Watch(lightning.Callback):
    """Notes the modes in use and the weights beyond them, per epoch."""

    def __init__(self):
        self.modes, self.beyond, self.fifth = [], [], None

    def on_train_start(self, trainer, pl_module):
        weight = pl_module.surrogate.operator.blocks[0].kernel.weight
        self.fifth = weight[4].abs().max().item()

    def on_train_epoch_end(self, trainer, pl_module):
        operator = pl_module.surrogate.operator
        (used,) = operator.active_modes
        self.modes.append(used)
        weight = operator.blocks[0].kernel.weight
        self.beyond.append(weight[used:].abs().max().item() if used < len(weight) else None)


def trained(data, folder, growth, epochs, checkpoint=None):
    torch.manual_seed(0)
    module = OperatorModule(FNO(1, 1, (6,), width=6, depth=2), data, warmup=0.3)
    watch = Watch()
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=[growth, watch], default_root_dir=folder, accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=checkpoint is not None)
    return trainer, module.surrogate.operator, watch


@pytest.fixture
def data(burgers_data):
    return OperatorDataModule(burgers_data, batch_size=12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_grows_by_epoch_resumes_and_ends_with_all(data, tmp_path):
    trainer, operator, watch = trained(data, tmp_path, IncrementalModes(4, every=2), 5)
    assert watch.modes == [4, 4, 5, 5, 6]
    assert watch.beyond == [0, 0, 0, 0, None]  # exactly: weight decay and Adam leave zeros
    assert watch.fifth == 0
    assert operator.active_modes == [6]
    assert operator.blocks[0].kernel.weight[5].abs().max() > 0

    class Interrupted(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    half = IncrementalModes(4, every=2)
    torch.manual_seed(0)
    module = OperatorModule(FNO(1, 1, (6,), width=6, depth=2), data, warmup=0.3)
    first = lightning.Trainer(
        max_epochs=5, callbacks=[half, Interrupted()], default_root_dir=tmp_path, logger=False,
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    first.fit(module, data)
    assert module.surrogate.operator.active_modes == [6]
    first.save_checkpoint(tmp_path / "half.ckpt")
    _, _, watch = trained(data, tmp_path, IncrementalModes(4, every=2), 5, tmp_path / "half.ckpt")
    assert watch.modes == [5, 6]
    assert watch.fifth > 0  # trained before, kept
    assert trainer.current_epoch == 5


@pytest.mark.filterwarnings("ignore")
def test_one_callback_serves_one_training_after_another(data, tmp_path):
    growth = IncrementalModes(4, every=1)
    for _ in range(2):
        _, _, watch = trained(data, tmp_path, growth, 3)
        assert watch.modes == [4, 5, 6]
        assert watch.beyond == [0, 0, None]


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_goes_on_keeps_the_weights(data, tmp_path):
    trainer, operator, _ = trained(data, tmp_path, IncrementalModes(4, every=1), 3)
    before = operator.blocks[0].kernel.weight[5].abs().max()
    trainer.fit_loop.max_epochs = 4
    trainer.fit(trainer.lightning_module, data)
    assert operator.blocks[0].kernel.weight[5].abs().max() > 0.5 * before > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_number_of_modes_is_compiled(data, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    module = OperatorModule(FNO(1, 1, (4,), width=2, depth=1), data)
    module.surrogate.compile(backend=backend)
    per_epoch = []

    class Count(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            per_epoch.append(len(graphs))

    with torch._dynamo.config.patch(recompile_limit=2):  # fewer than there are numbers of modes
        lightning.Trainer(
            max_epochs=4, callbacks=[IncrementalModes(1, every=1), Count()], logger=False,
            default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
        ).fit(module, data)  # fmt: skip
    torch.compiler.reset()
    assert len(set(per_epoch)) == 4


@pytest.mark.parametrize("factorization", [None, "tucker", "cp"])
def test_silent_modes_change_nothing_when_they_become_active(factorization):
    operator = FNO(1, 1, (4, 5), width=5, depth=2, factorization=factorization, rank=0.5).double()
    u = torch.randn(2, 1, 12, 15, dtype=torch.float64)
    operator.active_modes = (2, 3)
    few = operator(u)
    operator.silence_inactive_modes()
    operator.active_modes = (4, 5)
    assert torch.allclose(operator(u), few, atol=1e-14)
    operator(u).sum().backward()  # and they can learn
    kernel = operator.blocks[0].kernel
    gradient = (kernel.weight if factorization is None else kernel.factors[0]).grad
    assert gradient[0].abs().max() > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("growth", "epochs", "message"),
    [
        (IncrementalModes(2, every=2), 8, "reached in epoch 9, but max_epochs=8"),
        (IncrementalModes(7, every=1), 8, r"start needs 1 to as many modes .* \[6\]; got 7"),
        (IncrementalModes([2, 2], every=1), 8, r"got \[2, 2\]"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(data, tmp_path, growth, epochs, message):
    with pytest.raises(ValueError, match=message):
        trained(data, tmp_path, growth, epochs)


def test_other_modules_and_schedules_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="at least 1; every has 0"):
        IncrementalModes(2, every=0)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types may be wrong, too
    for start in (2.0, "a", True, [2.5], 0):
        with pytest.raises(ValueError, match=r"IncrementalModes needs whole numbers.*start has"):
            IncrementalModes(start, 1)

    class Other(lightning.LightningModule):
        operator = nn.Identity()

    with pytest.raises(ValueError, match="OperatorModule with an FNO, got Other"):
        IncrementalModes(2, 1).on_fit_start(lightning.Trainer(logger=False), Other())
