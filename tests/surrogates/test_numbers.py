"""Surrogates of numbers and of domains: normalised, checked, kept out of signs, and left out of norms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from sobolev import Surrogate
from sobolev.grids import Grid
from sobolev.grids.description import axis_coords
from sobolev.grids.symmetries import turned
from sobolev.grids.variables import MASK, Parameter, Variable
from sobolev.operators import FNO, Operator
from sobolev.training.losses import SobolevLoss

VISCOSITY = Parameter("viscosity", "viscosity", "1", 0.01, 1.0, "log")
U = Variable("u", "velocity", "1")
V = Variable("v", "velocity later", "1")
STATISTICS = {"viscosity": (np.log(0.1), 2.0), "u": (0.5, 2.0), "v": (1.0, 3.0), "mask": (0.7, 0.4)}


class FirstChannel(Operator):
    """Gives its first input channel."""

    def __init__(self, in_channels: int = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = 1
        self.weight = nn.Parameter(torch.ones(()))

    @property
    def ndim(self) -> int:
        return 1

    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch out_channels *size"]:
        return self.weight * u[:, :1]


def with_viscosity(operator: Operator | None = None) -> Surrogate:
    torch.manual_seed(0)
    operator = operator or FNO(2, 1, modes=(4,), width=6, depth=2)
    return Surrogate(operator, Grid.periodic(16), [VISCOSITY, U], [V], STATISTICS).eval()


def fields(samples: int = 3, **variables) -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((samples, 16))
    return xr.Dataset({"u": (("sample", "x"), values), **variables}, axis_coords(Grid.periodic(16)))


def test_numbers_are_normalised_by_their_logarithms():
    given = fields(viscosity=("sample", [0.01, 0.1, 1.0]))
    found = with_viscosity(FirstChannel()).predict(given).v
    expected = 1 + 3 * (np.log([0.01, 0.1, 1.0]) - np.log(0.1)) / 2
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 16, axis=1), rtol=1e-5)


def test_a_number_is_one_for_all_or_one_for_each_and_may_be_swept():
    surrogate = with_viscosity()
    each = surrogate.predict(fields(viscosity=("sample", [0.02, 0.2, 0.5])))
    alike = surrogate.predict(fields(viscosity=0.2))
    np.testing.assert_allclose(alike.v[1], each.v[1], atol=1e-6)
    one = fields().isel(sample=1)
    sweep = surrogate.predict(one.assign(viscosity=("nu", [0.02, 0.2])))
    assert sweep.v.dims == ("nu", "x")
    np.testing.assert_allclose(sweep.v[1], each.v[1], atol=1e-6)
    assert surrogate.predict(one.assign_coords(viscosity=0.2)).v.dims == ("x",)


def test_numbers_outside_the_training_datas_range_are_warned_of():
    with pytest.warns(UserWarning, match=r"viscosity is 3, .* from 0.01 to 1: 1 of 3 predictions"):
        with_viscosity().predict(fields(viscosity=("sample", [0.02, 3.0, 0.5])))


@pytest.mark.parametrize(
    ("viscosity", "said"),
    [
        (("sample", [0.1, np.nan, 0.2]), "viscosity is a finite number"),
        (("x", np.full(16, 0.1)), "viscosity is a finite number|along"),
        (("sample", [0.1, 0.2, 0.3], {"units": "m2/s"}), "viscosity is in units 'm2/s'"),
        (("other", [0.1, 0.2]), "numbers and fields need the same samples"),
    ],
)
def test_numbers_that_are_none(viscosity, said):
    surrogate = with_viscosity()
    if "|" in said:  # a field is no number: it is taken along its dimension, which is space
        viscosity = (("sample", "x"), np.full((3, 16), 0.1))
    with pytest.raises(ValueError, match=said):
        surrogate.predict(fields(viscosity=viscosity))
    with pytest.raises(ValueError, match="lacks viscosity"):
        surrogate.predict(fields())


def test_numbers_are_saved_and_loaded(tmp_path):
    surrogate = with_viscosity()
    surrogate.save(tmp_path / "s")
    again = Surrogate.load(tmp_path / "s")
    assert again.meaning.parameters == (VISCOSITY,)
    given = fields(viscosity=0.3)
    xr.testing.assert_equal(again.predict(given), surrogate.predict(given))


def test_symmetries_leave_numbers_their_sign():
    """F̄ commutes with u(x) → −u(−x) at a fixed viscosity."""
    average = with_viscosity().symmetrized(["odd reflection"])
    given = fields(viscosity=("sample", [0.02, 0.2, 0.5]))
    mirrored = given.assign(u=-given.u.copy(data=np.roll(given.u.values[:, ::-1], 1, axis=1)))
    found = average.predict(mirrored).v.values
    expected = -np.roll(average.predict(given).v.values[:, ::-1], 1, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_numbers_come_first_among_the_inputs():
    with pytest.raises(ValueError, match="numbers come before fields"):
        Surrogate(
            FNO(2, 1, modes=(4,), width=4), Grid.periodic(16), [U, VISCOSITY], [V], STATISTICS
        )
    with pytest.raises(ValueError, match="'mask' must be the first field"):
        Surrogate(
            FNO(2, 1, modes=(4,), width=4),
            Grid.periodic(16),
            [U, MASK],
            [V],
            STATISTICS,
            mask="mask",
        )


def test_an_input_that_is_constant_is_named_and_kept_out_of_the_normalisation():
    with pytest.warns(UserWarning, match="u is constant in the training data, 5"):
        surrogate = Surrogate(
            FirstChannel(1), Grid.periodic(16), [U], [V], {"u": (5.0, 0.0), "v": (0.0, 1.0)}
        )
    found = surrogate(torch.full((1, 1, 16), 5.0))
    assert torch.equal(found, torch.zeros_like(found))


BOX = Grid.dirichlet(9, 9)


def holed(mask: str | None = "mask") -> Surrogate:
    torch.manual_seed(0)
    operator = FNO(2, 1, modes=(3, 3), width=6, depth=2, boundary="dirichlet")
    return Surrogate(operator, BOX, [MASK, U], [V], STATISTICS, mask=mask).eval()


def in_a_domain() -> xr.Dataset:
    values = np.random.default_rng(1).standard_normal((2, 9, 9))
    mask = np.ones((2, 9, 9))
    mask[0, 2:5, 3:7] = 0
    mask[1, 4:8, 1:3] = 0
    coords = axis_coords(BOX)
    return xr.Dataset(
        {"mask": (("sample", "y", "x"), mask), "u": (("sample", "y", "x"), values)}, coords
    )


def test_nothing_outside_the_domain_matters_and_nothing_is_predicted_there():
    surrogate = holed()
    given = in_a_domain()
    found = surrogate.predict(given).v
    assert (found.isnull() == (given.mask == 0)).all()
    other = given.assign(u=given.u.where(given.mask == 1, 1e6))
    np.testing.assert_array_equal(surrogate.predict(other).v, found)
    gaps = given.u.where(given.mask == 1).to_dataset(name="u")
    np.testing.assert_array_equal(surrogate.predict(gaps).v, found)


@pytest.mark.parametrize(
    ("mask", "said"),
    [(0.0, "covers all nodes of a sample"), (0.5, "1 in the domain and 0 outside")],
)
def test_masks_that_are_none(mask, said):
    given = in_a_domain()
    with pytest.raises(ValueError, match=said):
        holed().predict(given.assign(mask=given.mask * mask))


def test_losses_are_norms_over_the_domain_alone():
    surrogate = holed()
    given = in_a_domain()
    inputs = torch.from_numpy(np.stack([given.mask, given.u], axis=1)).float()
    domain = inputs[:, :1]
    prediction, target = torch.randn(2, 2, 1, 9, 9).unbind(0)
    loss = SobolevLoss(BOX)

    def measured(p: Tensor, y: Tensor) -> float:
        return float(loss(surrogate.comparable(p, inputs), surrogate.comparable(y, inputs)))

    changed = measured(prediction + 5 * (1 - domain), target - 7 * (1 - domain))
    assert changed == pytest.approx(measured(prediction, target), rel=1e-6)
    inner = BOX.without_border(torch.ones(BOX.shape, dtype=torch.float64))  # the norm is over these
    weights = BOX.quadrature() * domain.double() * inner
    size = [
        (weights * u.double() ** 2).sum((1, 2, 3)).sqrt() for u in (prediction - target, target)
    ]
    assert measured(prediction, target) == pytest.approx(
        float((size[0] / size[1]).mean()), rel=1e-5
    )


def test_averages_over_symmetries_turn_the_domain_with_its_fields():
    average = holed().symmetrized(["reflections", "transposition"])
    given = in_a_domain()
    inputs = torch.from_numpy(np.stack([given.mask, given.u], axis=1)).float()
    coins = (1, 0, 1)
    symmetries = ["reflections", "transposition"]
    with torch.no_grad():
        found = average(turned(inputs, BOX, symmetries, coins))
        expected = turned(average(inputs), BOX, symmetries, coins)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_domain_is_known_at_its_own_nodes():
    with pytest.raises(ValueError, match=r"known at the .* nodes of its mask"):
        holed().predict(in_a_domain(), resolution=17)
    assert holed(mask=None).predict(in_a_domain(), resolution=17).v.shape == (2, 17, 17)
