"""SOAP: Adam in the eigenbases of the gradient's second moments, one basis per axis of a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

_EPS = 1e-8  # Adam's


class SOAP(Optimizer):
    """Adam where the gradient's second moments are nearly diagonal (Vyas et al. 2025,
    arXiv:2409.11321).

    For a weight with gradient G every axis a has its second moment, averaged over steps,

        F_a ← β₂ F_a + (1 − β₂) G_(a) G_(a)ᵀ,        G_(a) = G unfolded along a: (n_a, all the rest).

    Its eigenvectors Q_a are followed by one step of orthogonal iteration every ``interval`` steps.
    Adam adapts to the entries of the gradient rotated by all Q_a, and its step is rotated back; decay
    is decoupled, as in AdamW. What this brings for Fourier layers: channels that always act together
    get one rate for what they have in common and another for their difference, where Adam has but one
    per number.

    The bases are those of the two axes of channels, which a group of parameters names (``axes``, as
    ``sobolev.operators.channel_axes`` gives them), by default the first two, as in ``nn.Linear`` and
    ``nn.Conv2d``. Wavenumbers have none: where the data are as likely as their translates,
    coefficients of different wavenumbers are uncorrelated, and a rotation of what is diagonal already
    only adds noise. An axis with more than ``largest`` entries keeps its own basis, as its
    eigenproblem would cost more than the step; a weight without any other, such as a bias, gets plain
    AdamW. The first step of the rest measures the bases and moves nothing.

    Memory: Adam's and 2 Σ n_a² numbers per weight. Weights must be whole in every process (DDP, not
    FSDP).

    Args:
        params: as for every ``torch.optim.Optimizer``.
        lr: no entry of a rotated step is longer than Adam's would be; two to five times Adam's rate
            serves.
        betas: of the averages of gradients, and of all second moments.
        weight_decay: decoupled.
        interval: steps between updates of the bases.
        largest: length of the longest axis that has a basis.
        axes: of the channels, in weights of at least two axes.

    Raises:
        ValueError: for options without a meaning.

    >>> weight = torch.nn.Parameter(torch.randn(16, 16))
    >>> optimizer = SOAP([weight], lr=3e-3)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        weight_decay: float = 1e-4,
        interval: int = 10,
        largest: int = 256,
        axes: Sequence[int] = (0, 1),
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                "lr and weight_decay are at least 0, betas in [0, 1); "
                f"got lr={lr}, weight_decay={weight_decay}, betas={tuple(betas)}"
            )
        if interval < 1 or largest < 2:
            raise ValueError(
                f"interval is at least 1, largest at least 2; got interval={interval}, largest={largest}"
            )
        options = {
            "lr": lr, "betas": tuple(betas), "weight_decay": weight_decay, "interval": interval,
            "largest": largest, "axes": tuple(axes),
        }  # fmt: skip
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if any(weight.is_complex() for weight in self.param_groups[-1]["params"]):
            raise ValueError(
                "SOAP works on real weights; give a complex one as torch.view_as_real of it"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights that have gradients. ``closure`` is called first, and its result returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(
        self,
        weight: Float[Tensor, "*shape"],
        gradient: Float[Tensor, "*shape"],
        group: dict[str, Any],
    ) -> None:
        state = self.state[weight]
        beta1, beta2 = group["betas"]
        axes = _with_basis(weight, group)
        gradient = gradient.movedim(axes, [*range(len(axes))])
        if not state:
            state.update(_beginning(gradient, len(axes)))
            if axes:
                return
        state["steps"] += 1
        # each product takes the first axis to the end; rotated axes leave the moments of the others as they are
        for basis, moment in zip(state["bases"], state["moments"], strict=True):
            unfolded = gradient.reshape(len(basis), -1)
            moment.lerp_(unfolded @ unfolded.mT, 1 - beta2)
            gradient = (unfolded.mT @ basis).reshape(*gradient.shape[1:], -1)
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        bias1 = 1 - beta1 ** state["steps"]
        bias2 = 1 - beta2 ** state["steps"]
        step = (state["mean"] / bias1) / ((state["square"] / bias2).sqrt() + _EPS)
        for basis in reversed(state["bases"]):
            step = (basis @ step.reshape(-1, len(basis)).mT).reshape(-1, *step.shape[:-1])
        step = step.movedim([*range(len(axes))], axes)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])
        if axes and state["steps"] % group["interval"] == 0:
            _turn(state)


def _with_basis(weight: Float[Tensor, "*shape"], group: dict[str, Any]) -> list[int]:
    """Return the axes that have a basis, ascending."""
    if weight.ndim < 2:
        return []
    axes = sorted(a % weight.ndim for a in group["axes"])
    return [a for a in axes if 1 < weight.shape[a] <= group["largest"]]


def _beginning(gradient: Float[Tensor, "*shape"], rotated: int) -> dict[str, Any]:
    """Return the first state of a weight whose first ``rotated`` axes have bases. Its ``mean`` and
    ``square`` have these axes last."""
    unfolded = [gradient.movedim(a, 0).flatten(1) for a in range(rotated)]
    moments = [u @ u.mT for u in unfolded]
    like = gradient.movedim([*range(rotated)], [*range(-rotated, 0)])
    return {
        "steps": 0,
        "moments": moments,
        "bases": [torch.linalg.eigh(moment).eigenvectors.flip(1) for moment in moments],
        "mean": torch.zeros_like(like, memory_format=torch.contiguous_format),
        "square": torch.zeros_like(like, memory_format=torch.contiguous_format),
    }


def _turn(state: dict[str, Any]) -> None:
    """Bring the bases nearer to the moments' eigenvectors, in falling order of their eigenvalues."""
    for k, (basis, moment) in enumerate(zip(state["bases"], state["moments"], strict=True)):
        axis = k - len(state["bases"])
        energies = (basis * (moment @ basis)).sum(0)
        order = energies.argsort(descending=True)
        turned = torch.linalg.qr(moment @ basis[:, order]).Q
        change = basis.mT @ turned
        state["bases"][k] = turned
        state["mean"] = (state["mean"].movedim(axis, -1) @ change).movedim(-1, axis).contiguous()
        state["square"] = state["square"].index_select(axis, order)
