"""What every operator promises, whichever it is: a new operator is a new row of ``support.operators.CASES``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from support.operators import CASES
from support.processes import finished
from torch import Tensor

from sobolev.grids.spherical_transform import clear_tables
from sobolev.operators import (
    GFNO,
    Operator,
    SpectralConv,
    SphericalConv,
    channel_axes,
    operator_from,
)

TESTS = Path(__file__).parents[1]
each_operator = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def trained(operator: Operator, u: Tensor, target: Tensor, rate: float, steps: int) -> float:
    """Relative error on ``u`` after fitting it; stops at 1 %."""
    optimizer = torch.optim.Adam(operator.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        error = (operator(u) - target).norm() / target.norm()
        if error < 0.01:
            break
        error.backward()
        optimizer.step()
    return error.item()


@each_operator
def test_maps_fields_on_any_grid(case):
    operator = case.build()
    assert operator(case.input()).shape == (2, 1, *case.space)
    assert operator(case.input(other=True)).shape == (2, 1, *case.other)
    assert operator(case.input(), size=case.other).shape == (2, 1, *case.other)


@each_operator
def test_configuration_survives_json_and_builds_the_same_operator(case):
    operator = case.build()
    again = operator_from(json.loads(json.dumps(operator.description)))
    again.load_state_dict(operator.state_dict())
    u = case.input()
    assert torch.equal(operator.eval()(u), again.eval()(u))


@each_operator
def test_the_configuration_is_a_copy(case):
    operator = case.build()
    before = json.dumps(operator.configuration)
    for value in operator.configuration.values():
        if isinstance(value, (list, dict)):
            value.clear()
    assert json.dumps(operator.configuration) == before


@each_operator
@pytest.mark.parametrize("assign", [False, True])
def test_weights_are_all_that_an_operator_from_the_meta_device_needs(case, assign):
    operator, u = case.build(), case.input()
    with torch.device("meta"):
        blank = case.build()
    if not assign:
        blank.to_empty(device="cpu")
    blank.load_state_dict(operator.state_dict(), assign=assign)
    assert torch.equal(blank(u), operator(u))


@each_operator
def test_parameters_and_buffers_are_real(case):
    operator = case.build()
    assert not any(t.is_complex() for t in [*operator.parameters(), *operator.buffers()])


@pytest.mark.slow
@each_operator
def test_overfits_four_samples(case):
    operator, u = case.build(), case.input(4)
    assert trained(operator, u, case.target(u), case.learning_rate, case.steps) < 0.01


@each_operator
def test_no_tensor_is_made_on_the_default_device(case):
    operator, u = case.build(), case.input()
    clear_tables()  # of other tests, so that they are made on the meta device
    with torch.device("meta"):
        got = operator(u), operator(u, size=case.other)
    clear_tables()
    expected = operator(u), operator(u, size=case.other)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


@each_operator
def test_double_precision_is_double_throughout(case):
    operator, u = case.build().double(), case.input().double()
    result = operator(u)
    assert result.dtype == torch.float64
    single = operator.float()(u.float())
    assert single.dtype == torch.float32
    assert 1e-12 < (single - result).norm() / result.norm() < 1e-4


@each_operator
def test_autocast_stays_near_full_precision(case):
    operator, u = case.build(), case.input()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = operator(u)
    assert (low.float() - operator(u)).norm() / operator(u).norm() < 0.05


@each_operator
def test_checkpointing_changes_memory_and_nothing_else(case):
    operator, u = case.build(), case.input()
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept[-1] += saved.numel()
        return saved

    def gradients() -> list[Tensor]:
        kept.append(0)
        operator.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            result = operator(u)
        result.square().sum().backward()
        return [p.grad.clone() for p in operator.parameters() if p.grad is not None]

    plain = gradients()
    operator.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))
    assert kept[1] < 0.7 * kept[0]


@each_operator
def test_wrong_input_is_refused(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    operator = case.build()
    with pytest.raises(ValueError, match="in_channels=2, got 3 channels"):
        operator(torch.zeros(1, 3, *case.space))
    with pytest.raises(ValueError, match=r"expects \(batch, channels"):
        operator(torch.zeros(2, 2, *case.space, 4))
    with pytest.raises(ValueError, match="empty batch"):
        operator(case.input(0))
    with pytest.raises(ValueError, match="an axis without nodes"):
        operator(case.input()[..., :0])
    for dtype in (torch.float64, torch.int64, torch.complex64):
        with pytest.raises(ValueError, match=f"torch.float32 parameters, got {dtype} input"):
            operator(case.input().to(dtype))
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"got torch\.int64"),
    ):
        operator(case.input().long())


_ALONE = """
import sys
sys.path.insert(0, {folder!r})
import warnings; warnings.simplefilter("ignore")
import torch
from support.operators import CASES, shallow
torch.manual_seed(0)
torch.set_num_threads(1)
for name, case in CASES.items():
    {work}
    print(name)
"""
_COMPILED = """
    operator, u = shallow(case.build()), case.input()
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    got, expected = compiled(u), operator(u)
    assert torch.allclose(got, expected, atol=1e-5), (name, (got - expected).abs().max())
    got.sum().backward()
    torch.compiler.reset()
"""
_PARALLEL = """
    torch.distributed.is_initialized() or torch.distributed.init_process_group(
        "gloo", init_method="file://{file}", rank=0, world_size=1
    )
    operator = torch.nn.parallel.DistributedDataParallel(case.build())
    operator(case.input()).sum().backward()
    assert all(p.grad is not None for p in operator.parameters()), name
"""


def alone(work: str) -> str:
    """Run on every case in a process of its own, without the type checks of the test run."""
    program = _ALONE.format(folder=str(TESTS), work=work.strip())
    done = finished(program)
    assert done.returncode == 0, done.output
    return done.output


@pytest.mark.slow
def test_compiles_without_a_graph_break():
    assert alone(_COMPILED).split("\n")[:-1] == list(CASES)


@pytest.mark.slow
def test_every_parameter_takes_part_so_that_distributed_training_works(tmp_path):
    assert alone(_PARALLEL.format(file=tmp_path / "meeting")).split("\n")[:-1] == list(CASES)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_axes_of_channels(case):
    """All that grow with the width; in most weights no others are named."""
    operator = case.build()
    axes, wide = (
        channel_axes(operator),
        dict(operator_from(wider(operator.description)).named_parameters()),
    )
    assert list(axes) == list(wide)
    named, growing = 0, 0
    for name, parameter in operator.named_parameters():
        if parameter.ndim > 1:
            own = {a % parameter.ndim for a in axes[name]}
            grow = {a for a in range(parameter.ndim) if parameter.shape[a] != wide[name].shape[a]}
            assert grow <= own
            named, growing = named + len(own), growing + len(grow)
    assert growing > named / 2


def wider(description: Any) -> Any:
    """Of an operator, with more hidden channels wherever it has some."""
    if isinstance(description, dict):
        return {k: v + 4 if k == "width" else wider(v) for k, v in description.items()}
    return [wider(v) for v in description] if isinstance(description, list) else description


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SpectralConv(7, 11, (4, 3), boundary="periodic"),
        lambda: SpectralConv(7, 11, (4,), boundary="dirichlet"),
        *(lambda f=f: SphericalConv(7, 11, 5, filter=f) for f in ("zonal", "complex", "diagonal")),
        lambda: torch.nn.Linear(7, 11),
        lambda: torch.nn.Conv2d(7, 11, 3),
    ],
)
def test_axes_of_channels_in_layers(layer):
    layer = layer()
    axes = channel_axes(layer)["weight" if hasattr(layer, "weight") else "filter.weight"]
    weight = dict(layer.named_parameters())[
        "weight" if hasattr(layer, "weight") else "filter.weight"
    ]
    assert sorted(weight.shape[a] for a in axes) == [7, 11]


def test_axes_of_channels_in_group_convolutions():
    kernel = GFNO(7, 1, (3, 3), width=11, depth=1).blocks[0].kernel
    axes = channel_axes(kernel)
    for name in ("constant", "waves"):
        assert [getattr(kernel, name).shape[a] for a in axes[name]] == [11, 11]
