"""The layers that Fourier neural operators are stacked from, on channels-last fields.

In the equations K is a spectral convolution, S a skip, M a channel MLP (two 1×1 convolutions and a
GELU) and N a normalisation; σ, applied by the operator between blocks, is not in them. A ``film``
modulates what a block returns.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.operators.layers.film import Film
from sobolev.operators.layers.fourier import Transforms
from sobolev.operators.layers.spectral_conv import FourierLayer, full_precision

NORMS = ("instance", "batch", "group")
SKIPS = ("linear", "identity", "soft-gating")


class FourierBlock(nn.Module):
    """v ↦ N(K v + S v): the block of the paper (Li et al. 2021), which has N = 1 or batch norm."""

    def __init__(self, kernel: FourierLayer, width: int, *, skip: str | None, norm: str | None):
        super().__init__()
        self.kernel = kernel
        self.skip = skip_layer(skip, width)
        self.norm = norm_layer(norm, width)

    def forward(
        self,
        v: Float[Tensor, "batch *space width"],
        transforms: Transforms,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *space width"]:
        if film is None:
            return self.norm(added(self.kernel(v, transforms), self.skip, v))
        if isinstance(self.skip, nn.Linear) and isinstance(self.norm, nn.Identity):
            return self._modulated(v, transforms, film, self.skip)
        return film(self.norm(added(self.kernel(v, transforms), self.skip, v)))

    def _modulated(
        self,
        v: Float[Tensor, "batch *space width"],
        transforms: Transforms,
        film: Film,
        skip: nn.Linear,
    ) -> Float[Tensor, "batch *space width"]:
        """Return the modulation of K v + W v + b as a sum of two linear maps that have it in their
        weights, one each for every sample: no pass over the field is added."""
        shift = film.scale * skip.bias + film.shift
        w = self.kernel(v, transforms, film=Film(film.scale, shift))
        weight = film.scale[:, None] * skip.weight.T
        rows = torch.baddbmm(w.flatten(1, -2), v.flatten(1, -2), weight)
        return rows.view(w.shape)


class KernelMLPBlock(nn.Module):
    """v ↦ M N(K N(v)) + S v: the block of the authors' later code (S linear; N = 1, or instance norm
    in its Navier–Stokes script) and of the FNO to which G-FNO was compared (Helwig et al. 2023)."""

    def __init__(
        self, kernel: FourierLayer, width: int, hidden: int, *, skip: str | None, norm: str | None
    ):
        super().__init__()
        self.kernel = kernel
        self.mlp = channel_mlp(width, hidden, width)
        self.skip = skip_layer(skip, width)
        self.norm_in = norm_layer(norm, width)
        self.norm = norm_layer(norm, width)

    def forward(
        self,
        v: Float[Tensor, "batch *space width"],
        transforms: Transforms,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *space width"]:
        branch = self.mlp(self.norm(self.kernel(self.norm_in(v), transforms)))
        w = added(branch, self.skip, v)
        return w if film is None else film(w)


class TwoSkipBlock(nn.Module):
    """v ↦ N₂(M σ(N₁(K v) + S₁ v) + S₂ v): neuralop's block; its last one is without σ."""

    def __init__(
        self,
        kernel: FourierLayer,
        width: int,
        hidden: int,
        *,
        skips: tuple[str | None, str | None],
        norm: str | None,
        last: bool,
    ):
        super().__init__()
        self.kernel = kernel
        self.mlp = channel_mlp(width, hidden, width)
        self.skip, self.mlp_skip = (skip_layer(kind, width) for kind in skips)
        self.norm = norm_layer(norm, width)
        self.mlp_norm = norm_layer(norm, width)
        self.activation = nn.Identity() if last else nn.GELU()

    def forward(
        self,
        v: Float[Tensor, "batch *space width"],
        transforms: Transforms,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *space width"]:
        inner = added(self.norm(self.kernel(v, transforms)), self.skip, v)
        w = self.mlp_norm(added(self.mlp(self.activation(inner)), self.mlp_skip, v))
        return w if film is None else film(w)


class SoftGating(nn.Module):
    """v ↦ w ⊙ v + b, a weight and a bias per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(
        self, v: Float[Tensor, "batch *space width"]
    ) -> Float[Tensor, "batch *space width"]:
        return self.weight * v + self.bias


class Standardized(nn.Module):
    """(v − mean) / √(variance + ε) of each sample, over the nodes – and over the channels too, with
    a weight and a bias per channel, if ``group``.

    Nodes count alike, so that on axes with end points statistics carry an error of first order in
    the spacing.
    """

    def __init__(self, width: int, *, group: bool, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.group = group
        self.epsilon = epsilon
        if group:
            self.weight = nn.Parameter(torch.ones(width))
            self.bias = nn.Parameter(torch.zeros(width))

    def forward(
        self, v: Float[Tensor, "batch *space width"]
    ) -> Float[Tensor, "batch *space width"]:
        with full_precision(v):
            v = v if v.dtype == torch.float64 else v.float()
            axes = list(range(1, v.ndim if self.group else v.ndim - 1))
            variance, mean = torch.var_mean(v, axes, correction=0, keepdim=True)
            v = (v - mean) * torch.rsqrt(variance + self.epsilon)
            return self.weight * v + self.bias if self.group else v


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over samples and nodes of a channels-last field.

    Recomputing activations (``Operator.checkpointing``) moves its running statistics twice a step.
    """

    def forward(
        self, v: Float[Tensor, "batch *space width"]
    ) -> Float[Tensor, "batch *space width"]:
        return super().forward(v.flatten(0, -2)).view_as(v)


def skip_layer(kind: str | None, width: int) -> nn.Module | None:
    """Return a map of ``width`` channels to themselves, one of ``SKIPS``; None for none."""
    match kind:
        case "linear":
            return nn.Linear(width, width)
        case "identity":
            return nn.Identity()
        case "soft-gating":
            return SoftGating(width)
        case None:
            return None
    raise ValueError(f"skip needs one of {', '.join(SKIPS)} or None, got {kind!r}")


def norm_layer(kind: str | None, width: int) -> nn.Module:
    """Return a normalisation of ``width`` channels, one of ``NORMS``; None for none."""
    match kind:
        case "instance" | "group":
            return Standardized(width, group=kind == "group")
        case "batch":
            return BatchNorm(width)
        case None:
            return nn.Identity()
    raise ValueError(f"norm needs one of {', '.join(NORMS)} or None, got {kind!r}")


def channel_mlp(channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Return two 1×1 convolutions with a GELU between them."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))


def added(
    v: Float[Tensor, "batch *space width"],
    skip: nn.Module | None,
    source: Float[Tensor, "batch *space width"],
) -> Float[Tensor, "batch *space width"]:
    """Return ``v``, plus the skip of ``source`` where there is one."""
    return v if skip is None else v + skip(source)
