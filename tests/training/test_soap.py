"""SOAP against what defines it: it is Adam where there is no basis, and does not see in which basis the channels are
given."""

import copy

import lightning
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from sobolev.datasets import OperatorDataModule
from sobolev.operators import FNO
from sobolev.training import SOAP, OperatorModule


def descend(weight, gradient, steps=40, **options):
    """Iterates of a fresh optimizer on a weight that starts here."""
    weight = nn.Parameter(weight.clone())
    optimizer = SOAP([weight], **{"lr": 1e-2, "weight_decay": 0.1, "interval": 3, **options})
    for _ in range(steps):
        weight.grad = gradient(weight.detach())
        optimizer.step()
    return weight.detach()


def noisy(shape, seed=0):
    """Gradients of ½ ‖M(W)‖² for a random linear M, with noise; W has orthogonal axes to be rotated."""
    dice = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel()
    matrix = torch.randn(size, size, generator=dice, dtype=torch.float64) / size**0.5
    state = {"step": 0}

    def gradient(weight):
        noise = torch.randn(shape, generator=dice, dtype=torch.float64)
        state["step"] += 1
        return (matrix.T @ matrix @ weight.flatten()).view(shape) + 0.1 * noise

    return gradient


def rotation(n, seed):
    dice = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=dice, dtype=torch.float64)).Q


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "axes", "pattern"),
    [
        ((7, 7), (0, 1), "ip,jq,ij->pq"),
        ((6, 4, 3, 3), (0, 1), "ip,jq,ijkl->pqkl"),
        ((5, 6, 4, 2), (-3, -2), "ip,jq,kijl->kpql"),
        ((5, 3, 6, 4), (-2, -1), "ip,jq,klij->klpq"),
    ],
)
def test_iterates_turn_with_the_channels(shape, axes, pattern):
    """If W' = U W V in the channels, so are all iterates: the bases turn along, up to signs, which no step
    sees. Adam has no such property."""
    first, second = (rotation(shape[a], seed) for seed, a in enumerate(axes))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def turned(w):
        return torch.einsum(pattern, first, second, w)

    def turned_back(w):
        return torch.einsum(pattern, first.T, second.T, w)

    plain = descend(weight, noisy(shape), axes=axes)
    gradient = noisy(shape)
    other = descend(turned(weight), lambda w: turned(gradient(turned_back(w))), axes=axes)
    assert (plain - weight).abs().max() > 0.05
    torch.testing.assert_close(other, turned(plain), rtol=0, atol=1e-9)

    gradient = noisy(shape)
    adam = descend(turned(weight), lambda w: turned(gradient(turned_back(w))), axes=())
    assert (adam - turned(descend(weight, noisy(shape), axes=()))).abs().max() > 1e-2


@pytest.mark.parametrize("options", [{"axes": ()}, {"largest": 5}])
def test_without_bases_it_is_adamw(options):
    weight = torch.randn(6, 7, dtype=torch.float64)
    found = descend(weight, noisy((6, 7)), **options)
    theirs, gradient = nn.Parameter(weight.clone()), noisy((6, 7))
    adam = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.95, 0.95), weight_decay=0.1)
    for _ in range(40):
        theirs.grad = gradient(theirs.detach())
        adam.step()
    torch.testing.assert_close(found, theirs.detach(), rtol=1e-9, atol=1e-9)


def test_biases_get_adamw():
    bias = torch.randn(12, dtype=torch.float64)
    torch.testing.assert_close(
        descend(bias, lambda w: w), descend(bias, lambda w: w, axes=()), rtol=0, atol=0
    )


@pytest.mark.slow
def test_bases_become_the_eigenvectors():
    """Of gradients whose second moments are known."""
    left, right = rotation(8, 0), rotation(5, 1)
    spread = torch.logspace(0, -2, 8, dtype=torch.float64)[:, None] * torch.logspace(
        0, -1, 5, dtype=torch.float64
    )
    weight = nn.Parameter(torch.zeros(8, 5, dtype=torch.float64))
    optimizer = SOAP([weight], lr=0.0, betas=(0.9, 0.999), interval=1)
    dice = torch.Generator().manual_seed(2)
    for _ in range(3000):
        weight.grad = (
            left @ (spread * torch.randn(8, 5, generator=dice, dtype=torch.float64)) @ right.T
        )
        optimizer.step()
    for basis, true in zip(optimizer.state[weight]["bases"], (left, right), strict=True):
        assert (basis.T @ true).abs().diagonal().min() > 0.99


def test_a_quadratic_that_is_hard_for_adam():
    """Curvatures from 1 to 1e-4 in a rotated basis."""
    basis, curvature = rotation(16, 0), torch.logspace(0, -4, 16, dtype=torch.float64)
    hessian = basis @ torch.diag(curvature) @ basis.T
    dice = torch.Generator().manual_seed(0)
    start = torch.randn(16, 16, generator=dice, dtype=torch.float64)

    def final(**options):
        weight = nn.Parameter(start.clone())
        optimizer = SOAP([weight], lr=0.1, weight_decay=0.0, **options)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
            weight.grad = hessian @ weight.detach()
            optimizer.step()
        return float((weight.detach() * (hessian @ weight.detach())).sum())

    assert final() < 0.01 * final(axes=())


def test_goes_on_from_its_state_to_the_same_bits():
    gradients = torch.randn(30, 6, 9)
    weight = nn.Parameter(torch.randn(6, 9))
    optimizer = SOAP([weight], interval=4)
    for i, gradient in enumerate(gradients):
        if i == 10:
            other = nn.Parameter(weight.detach().clone())
            continued = SOAP([other], interval=4)
            continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        weight.grad = gradient
        optimizer.step()
        if i >= 10:
            other.grad = gradient
            continued.step()
    assert torch.equal(weight, other)


def test_makes_no_tensor_elsewhere():
    weights = [nn.Parameter(torch.randn(9, 8, 2)), nn.Parameter(torch.randn(5))]
    with torch.device("meta"):
        optimizer = SOAP(weights, interval=2)
        for _ in range(5):
            for weight in weights:
                weight.grad = torch.ones_like(weight) * weight.detach()
            optimizer.step()
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_closure_and_unused_weights():
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    optimizer = SOAP([used, unused], lr=1e-2)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert losses[0] == losses[1] == 9.0  # the first step measures
    assert losses[-1] < 8.5
    assert optimizer.step() is None
    assert torch.equal(unused, torch.ones(3, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "at least 0"),
        ({"lr": float("nan")}, "at least 0"),
        ({"betas": (0.9, 1.0)}, r"betas in \[0, 1\)"),
        ({"weight_decay": -1.0}, "at least 0"),
        ({"interval": 0}, "interval is at least 1"),
        ({"largest": 1}, "largest at least 2"),
    ],
)
def test_refuses_options_without_a_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        SOAP([nn.Parameter(torch.zeros(3, 3))], **options)


def test_refuses_complex_weights():
    with pytest.raises(ValueError, match="view_as_real"):
        SOAP([nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))])


@pytest.fixture
def module(burgers_data):
    data = OperatorDataModule(burgers_data, batch_size=8)
    return OperatorModule(FNO(1, 1, (4,), width=9, depth=2), data, optimizer=SOAP), data


def trainer():
    return lightning.Trainer(
        max_epochs=1, limit_val_batches=0, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_a_fourier_layer_has_bases_for_its_channels_alone(module):
    module, data = module
    run = trainer()
    run.fit(module, data)
    (optimizer,) = run.optimizers
    bases = {
        name: [len(basis) for basis in optimizer.state[parameter]["bases"]]
        for name, parameter in module.surrogate.operator.named_parameters()
    }
    assert bases["blocks.0.kernel.weight"] == [9, 9]  # of (4, 9, 9, 2)
    assert bases["blocks.0.skip.weight"] == [9, 9]
    assert bases["lift.weight"] == [9]  # of (9, 1)
    assert bases["lift.bias"] == []


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_refuses_sharded_weights(module, monkeypatch):
    """The strategies that shard need GPUs; one that does not stands for them here."""
    monkeypatch.setattr("sobolev.training.module.SHARDED", SingleDeviceStrategy)
    with pytest.raises(ValueError, match="SOAP needs whole weights"):
        trainer().fit(*module)
