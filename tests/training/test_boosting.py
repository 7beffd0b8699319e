"""Boosting: each stage learns what the earlier ones leave, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys

import lightning
import pytest
import torch

from sobolev.datasets import OperatorDataModule
from sobolev.operators import FNO, SpecBoost
from sobolev.training import OperatorModule, relative_error
from sobolev.training.boosting import BoostingModule, boost


def trainer(epochs, **options):
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.fixture
def data(burgers_data):
    return OperatorDataModule(burgers_data, batch_size=4)


def stages():
    return SpecBoost([FNO(1, 1, (1,), width=8, depth=2), FNO(1, 1, (16,), width=8, depth=2)])


def error(surrogate, data):
    items = data.pairs("train")
    with torch.no_grad():
        return relative_error(surrogate(items.inputs), items.outputs, data.grid).mean().item()


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*number of training batches.*",
    "ignore:.*treespec.*",
)
def test_the_second_stage_learns_what_the_first_leaves(data):
    operator, errors, first = stages(), [], []

    def next_trainer(k):
        if k:
            first.extend(p.clone() for p in operator.stages[0].parameters())
            errors.append(error(module_of(operator, data), data))
        return trainer(5, limit_val_batches=0)

    surrogate = boost(operator, data, next_trainer, learning_rate=2e-2)
    assert error(surrogate, data) < 0.7 * errors[0]
    assert all(
        torch.equal(a, b) for a, b in zip(first, operator.stages[0].parameters(), strict=True)
    )
    spread = operator.scale[1].item()
    assert 0 < spread < 1  # residuals are smaller than the normalised fields
    assert all(p.requires_grad for p in operator.parameters())


def module_of(operator, data):
    return BoostingModule(operator, data, 0).surrogate.eval()


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*number of training batches.*",
    "ignore:.*treespec.*",
)
def test_the_scale_is_that_of_the_normalised_residuals(data):
    operator = stages()
    module = BoostingModule(operator, data, 1)
    items, (mean, spread) = data.pairs("train"), data.statistics["velocity"]
    trainer(0).fit(module, data)
    module.on_fit_start()
    operator.active = 1
    with torch.no_grad():
        residual = (items.outputs - module.surrogate.eval()(items.inputs)) / spread
    assert operator.scale[1].item() == pytest.approx(residual.std(correction=0).item(), rel=1e-4)
    assert operator.mean[1].item() == pytest.approx(residual.mean().item(), rel=1e-3, abs=1e-6)
    assert mean == pytest.approx(data.statistics["velocity"][0])


_DISTRIBUTED = """
import warnings; warnings.simplefilter("ignore")
import lightning
from sobolev.datasets import OperatorDataModule
from sobolev.operators import FNO, SpecBoost
from sobolev.training.boosting import BoostingModule
operator = SpecBoost([FNO(1, 1, (3,), width=4, depth=1), FNO(1, 1, (8,), width=4, depth=1)])
module = BoostingModule(operator, OperatorDataModule({data!r}, batch_size=8), 1)
trainer = lightning.Trainer(
    max_steps=2, accelerator="cpu", devices=1, strategy="ddp", logger=False, limit_val_batches=0,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(module, module.data)
assert trainer.global_step == 2
assert (operator.scale[1] > 0).all()
"""


def test_a_later_stage_trains_under_ddp(burgers_data):
    """Which waits for all parameters that wanted gradients when it wrapped the module; it does so
    from the second step on."""
    program = _DISTRIBUTED.format(data=str(burgers_data))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_no_boost_is_refused(data):
    with pytest.raises(ValueError, match="stages of a SpecBoost, got FNO"):
        BoostingModule(FNO(1, 1, (4,)), data, 0)
    with pytest.raises(ValueError, match="stages 0 to 1, got 2"):
        BoostingModule(stages(), data, 2)


@pytest.mark.filterwarnings("ignore")
def test_a_second_boost_measures_the_scales_anew_and_a_failed_fit_freezes_nothing(data):
    operator = stages()
    operator.scale[1] = 123.0
    boost(operator, data, lambda k: trainer(0))
    assert operator.scale[1].item() < 100

    class Failing(lightning.Callback):
        def on_train_batch_end(self, *_):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        boost(operator, data, lambda k: trainer(k, callbacks=[Failing()]))
    assert all(p.requires_grad for p in operator.parameters())


@pytest.mark.filterwarnings("ignore")
def test_plain_training_of_stages_without_scale_is_refused(data):
    with pytest.raises(ValueError, match=r"boosting\.boost does that"):
        trainer(1).fit(OperatorModule(stages(), data), data)
