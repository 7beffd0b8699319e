"""A sample whose true field is zero: nothing is relative to it, and it spoils nothing."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch

from sobolev import Surrogate
from sobolev.datasets import OperatorDataModule, import_data
from sobolev.operators import FNO
from sobolev.training import OperatorModule, train
from sobolev.training.zeros import in_words

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def trained(folder, zero, **options) -> Surrogate:
    """A run of two epochs on twenty fields, some of whose targets are zero; two of them are set aside
    for validation."""
    fields = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    targets = fields.clone()
    targets[zero] = 0.0
    torch.save({"x": fields, "y": targets}, folder / "pair.pt")
    import_data(
        folder / "pair.pt", folder / "data", boundary="periodic", length=1.0, progress=False,
        splits={"train": 20},
    )  # fmt: skip
    data = OperatorDataModule(folder / "data", batch_size=4)
    assert [data.pairs("valid").number_of(i) for i in range(2)] == [18, 19]
    module = OperatorModule(FNO(1, 1, modes=(4,), width=4, depth=1), data)
    settings = {"accelerator": "cpu", "enable_progress_bar": False, **options}
    return train(module, data, folder / "run", max_epochs=2, **settings)


@pytest.mark.parametrize("zero", [[3], [19]], ids=["train", "valid"])
def test_training_names_it_and_scores_the_others(tmp_path, caplog, zero):
    with caplog.at_level(logging.WARNING, logger="sobolev"):
        surrogate = trained(tmp_path, zero, patience=1)
    (said,) = [r.message for r in caplog.records if "is zero" in r.message]
    assert said.startswith(f"the true field of sample {zero[0]} in split 'train' is zero")
    record = surrogate.provenance.training
    assert record.epochs == 2
    assert record.best_epoch == 2
    assert 0 < record.valid_relative_l2 < 10
    saved = json.loads((tmp_path / "run" / "surrogate" / "surrogate.json").read_text())
    assert math.isfinite(saved["provenance"]["training"]["valid_relative_l2"])


def test_a_validation_of_zeros_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of all validation samples are zero"):
        trained(tmp_path, [18, 19])


def test_none_is_named_where_there_is_none(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="sobolev"):
        trained(tmp_path, [])
    assert not [r for r in caplog.records if "is zero" in r.message]
    assert in_words(range(12)) == "samples 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
