"""One small operator of each kind: a new operator is a new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sobolev import SphereGrid
from sobolev.operators import (
    FNO,
    GFNO,
    SFNO,
    MgNO,
    Modulated,
    Operator,
    Planar,
    SpatioTemporalFNO,
    SpecBoost,
    Trajectory,
    operator_from,
)


@dataclass(frozen=True)
class Case:
    """An operator from 2 channels to 1, small enough to be trained in seconds."""

    build: Callable[[], Operator]
    space: tuple[int, ...]
    other: tuple[int, ...]
    """Another grid, on which the operator must work too."""
    learning_rate: float = 1e-2
    steps: int = 150
    """That it takes to learn four samples to 1 %."""
    target: Callable[[Tensor], Tensor] = lambda u: torch.sin(u[:, :1].cumsum(-1))
    """What it is trained to make of its inputs."""

    def input(self, batch: int = 2, *, other: bool = False) -> Tensor:
        return torch.randn(batch, 2, *(self.other if other else self.space))


def scaled_waves(u: Tensor) -> Tensor:
    """Arbitrary fields whose amplitude is a function of the scalar at the first node of ``u``."""
    first = u[(slice(None), slice(1), *[slice(1)] * (u.ndim - 2))]
    return first.cos() * torch.sin(u[:, 1:].cumsum(-1))


def smooth(u: Tensor, grid: SphereGrid) -> Tensor:
    """Arbitrary fields on a sphere, one for each of ``u``; white noise has no meaning at a pole."""
    c = torch.zeros(len(u), 1, *grid.mode_shape)
    c[..., :9] = u[:, :1].flatten(2)[..., :9]
    return torch.sin(grid.from_modes(c))


MIXED = ("neumann", "periodic", "dirichlet")
CASES: dict[str, Case] = {
    "FNO 1-d": Case(lambda: FNO(2, 1, (4,), width=16, depth=2), (9,), (24,)),
    "FNO 2-d": Case(
        lambda: FNO(2, 1, (4, 3), width=16, depth=2, boundary="dirichlet", positions=True),
        (9, 10),
        (17, 19),
    ),
    "FNO 3-d": Case(
        lambda: FNO(2, 1, (3, 2, 2), width=12, depth=2, boundary=MIXED),
        (7, 8, 9),
        (8, 9, 9),
        steps=400,
    ),
    "FNO with an MLP": Case(
        lambda: FNO(2, 1, (4, 4), width=12, depth=2, lifting=16, mlp=1, norm="instance"),
        (9, 10),
        (17, 19),
    ),
    "FNO with two skips": Case(
        lambda: FNO(
            2, 1, (4,), width=16, depth=2, mlp=1, norm="group", skip=["linear", "soft-gating"]
        ),
        (9,),
        (24,),
    ),
    "FNO, Tucker weights": Case(
        lambda: FNO(2, 1, (4, 4), width=16, depth=2, factorization="tucker", rank=0.4),
        (9, 10),
        (17, 19),
    ),
    "FNO, CP weights": Case(
        lambda: FNO(2, 1, (4, 4), width=16, depth=2, factorization="cp", rank=0.4),
        (9, 10),
        (17, 19),
    ),
    "SpecBoost": Case(
        lambda: SpecBoost(
            [FNO(2, 1, (4,), width=16, depth=2), FNO(3, 1, (6,), width=8, depth=2)], hand_over=True
        ),
        (9,),
        (24,),
    ),
    "SpatioTemporalFNO": Case(
        lambda: SpatioTemporalFNO(2, 1, (3, 4, 3), width=12, depth=2, latent_steps=4, padding=0.5),
        (5, 7, 3),
        (8, 9, 4),
    ),
    "Trajectory": Case(
        lambda: Trajectory(
            SpatioTemporalFNO(1, 1, (4, 3, 2), width=12, depth=1, latent_steps=3), 2, 1
        ),
        (7, 5),
        (8, 9),
    ),
    "SFNO, zonal": Case(
        lambda: SFNO(2, 1, SphereGrid(8, 16), width=32, depth=2, scale=2),
        (8, 16),
        (9, 21),
        learning_rate=2e-2,
        steps=400,
        target=lambda u: smooth(u, SphereGrid(8, 16)),
    ),
    "SFNO, diagonal": Case(
        lambda: SFNO(
            2,
            1,
            SphereGrid(7, 8, "equiangular"),
            width=16,
            depth=2,
            filter="diagonal",
            norm=True,
            skip=True,
            positions=True,
        ),
        (7, 8),
        (12, 16),
        target=lambda u: smooth(u, SphereGrid(7, 8, "equiangular")),
    ),
    "Planar": Case(
        lambda: Planar(FNO(2, 1, (4, 4), width=16, depth=2, boundary=["neumann", "periodic"])),
        (9, 10),
        (17, 19),
    ),
    "MgNO, residual": Case(
        lambda: MgNO(2, 1, 3, 16, 2, "dirichlet", restrict="residual"), (9, 10), (17, 19), 3e-3
    ),
    "MgNO, periodic": Case(lambda: MgNO(2, 1, 3, 16, 2, "periodic"), (9, 11), (16, 12), 3e-3),
    "GFNO p4": Case(
        lambda: GFNO(2, 1, (4, 4), width=6, depth=2, positions="symmetric"), (9, 9), (16, 16)
    ),
    "GFNO p4m": Case(
        lambda: GFNO(
            2,
            1,
            (4, 4),
            width=8,
            depth=1,
            group="p4m",
            boundary="dirichlet",
            vectors={"in": [[0, 1]]},
        ),
        (9, 9),
        (16, 16),
        steps=400,
    ),
    "Modulated FNO": Case(
        lambda: Modulated(FNO(1, 1, (4,), width=16, depth=2)), (9,), (24,), target=scaled_waves
    ),
    "Modulated MgNO": Case(
        lambda: Modulated(MgNO(1, 1, 2, 16, 2, "periodic", ndim=1)),
        (9,),
        (14,),
        target=scaled_waves,
    ),
    "GFNO 3-d": Case(
        lambda: GFNO(2, 1, (3, 3, 3), width=8, depth=2, boundary=["periodic"] * 2 + ["neumann"]),
        (7, 7, 5),
        (8, 8, 6),
    ),
}


def shallow(operator: Operator) -> Operator:
    """Return a new one of its kind that is one layer deep, and so are its parts: torch's compiler and exporter
    take time in proportion to the depth, and find nothing new in a second layer."""
    return operator_from(_shallow(operator.description))


def _shallow(description: Any) -> Any:
    if isinstance(description, dict):
        return {k: 1 if k == "depth" else _shallow(v) for k, v in description.items()}
    return [_shallow(v) for v in description] if isinstance(description, list) else description
