"""Weights of Fourier neural operators that were trained with neuralop.

Nothing is unpickled here: a model is given. What cannot be represented is refused by name.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.operators.base import with_weights
from sobolev.operators.fno import FNO

_NORMS = {"InstanceNorm": "instance", "BatchNorm": "batch"}


def fno_from_neuralop(model: Any) -> FNO:
    """Return the same network as a neuralop 2.0 ``FNO`` or ``TFNO``, dense, and in its mode, training
    or evaluation.

    Outputs agree to rounding (in float32: neuralop's weights are complex64 whatever the dtype) on
    every grid with more nodes per axis than ``n_modes``, an even number on all axes but the last:
    neuralop 2.0 undoes its shift of the spectrum by a second shift, which on an odd axis is one node
    off. On coarser grids it drops modes from the wrong end. Its mode count is of both signs
    together; an even one of 2m is our m, on the last axis m + 1.

    Raises:
        ValueError: naming what we do not have: complex data, domain padding, resolution scaling,
            separable weights, preactivation, stabilizer, dropout, reduced precision, an activation
            other than GELU, blocks without channel MLP (there neuralop applies GELU twice), kernel
            skips other than linear and soft-gating, group and adaptive norms, other embeddings than
            its own grid on [0, 1], a model in the midst of incremental training.
    """
    blocks = getattr(model, "fno_blocks", None)
    if blocks is None or not type(model).__module__.startswith("neuralop."):
        raise ValueError(f"fno_from_neuralop needs a neuralop FNO, got a {type(model).__name__}")
    _refuse_neuralop(model, blocks)
    weights = [conv.weight.to_tensor().detach() for conv in blocks.convs]
    halves = [-(-n // 2) for n in weights[0].shape[2:-1]]
    lifting = model.lifting.fcs
    projection = model.projection.fcs
    kind = None if blocks.norm is None else type(blocks.norm[0]).__name__
    operator = FNO(
        model.in_channels,
        model.out_channels,
        [*halves, weights[0].shape[-1]],
        model.hidden_channels,
        model.n_layers,
        positions="half-open" if model.positional_embedding is not None else False,
        lifting=lifting[0].out_channels if len(lifting) == 2 else None,
        projection=projection[0].out_channels,
        mlp=blocks.channel_mlp[0].hidden_channels / model.hidden_channels,
        norm=None if kind is None else _NORMS[kind],
        skip=[blocks.fno_skip, blocks.channel_mlp_skip],
    )
    state = _linear_layers("lift", lifting) | _linear_layers("project", projection)
    for i in range(model.n_layers):
        state |= _neuralop_block(f"blocks.{i}", blocks, i, weights[i])
    return with_weights(operator, state).train(model.training)


def _refuse_neuralop(model: Any, blocks: Any) -> None:
    norm = None if blocks.norm is None else type(blocks.norm[0]).__name__
    embedding = model.positional_embedding
    unit_grid = embedding is None or (
        type(embedding).__name__ in ("GridEmbeddingND", "GridEmbedding2D")
        and all([float(a), float(b)] == [0.0, 1.0] for a, b in embedding.grid_boundaries)
    )
    refused = {
        "complex_data=True": model.complex_data,
        "domain_padding": model.domain_padding is not None,
        "resolution_scaling_factor": model.resolution_scaling_factor is not None,
        "separable=True": model.separable,
        "preactivation=True": model.preactivation,
        f"stabilizer={blocks.stabilizer!r}": blocks.stabilizer is not None,
        f"fno_block_precision={model.fno_block_precision!r}": model.fno_block_precision != "full",
        "non_linearity other than F.gelu": model.non_linearity is not F.gelu,
        "use_channel_mlp=False": not blocks.use_channel_mlp,
        "channel_mlp_dropout": bool(blocks.channel_mlp_dropout),
        f"fno_skip={blocks.fno_skip!r}": blocks.fno_skip not in ("linear", "soft-gating"),
        f"norm {norm}": norm not in (None, *_NORMS),
        f"positional_embedding {type(embedding).__name__}": not unit_grid,
        "conv_module other than its SpectralConv": any(
            type(conv).__name__ != "SpectralConv" for conv in blocks.convs
        ),
    }
    names = [name for name, present in refused.items() if present]
    if not names and any(list(c.n_modes) != list(c.max_n_modes) for c in blocks.convs):
        names = ["max_n_modes with fewer active n_modes (set model.n_modes to them first)"]
    if names:
        raise ValueError(f"a neuralop FNO with {', '.join(names)} cannot be loaded; we lack that")


def _neuralop_block(
    name: str, blocks: Any, i: int, weight: Complex[Tensor, "i o *modes"]
) -> dict[str, Shaped[Tensor, " ..."]]:
    conv = blocks.convs[i]
    n = weight.ndim - 2
    bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().flatten()
    norm = None if blocks.norm is None else blocks.norm[2 * i : 2 * i + 2]
    # (in, out, *modes) with frequencies −⌊n/2⌋ … on all axes but the last: an odd block lacks one row
    weight = F.pad(torch.view_as_real(weight), [0, 0, 0, 0, *_odd_rows(weight)])
    state = {
        f"{name}.kernel.weight": weight.movedim((0, 1), (n, n + 1)),
        # a norm that subtracts the mean takes the kernel's bias away again
        f"{name}.skip.bias": bias if norm is None else torch.zeros_like(bias),
        f"{name}.skip.weight": _skip_weight(blocks.fno_skips[i]),
    } | _linear_layers(f"{name}.mlp", blocks.channel_mlp[i].fcs)
    if blocks.channel_mlp_skip in ("linear", "soft-gating"):
        state[f"{name}.mlp_skip.weight"] = _skip_weight(blocks.channel_mlp_skips[i])
        state[f"{name}.mlp_skip.bias"] = torch.zeros_like(bias)
    if norm is not None and type(norm[0]).__name__ == "BatchNorm":
        for ours, theirs in zip(("norm", "mlp_norm"), norm, strict=True):
            state |= {f"{name}.{ours}.{k}": v for k, v in theirs.norm.state_dict().items()}
        state[f"{name}.norm.running_mean"] = state[f"{name}.norm.running_mean"] - bias
    return state


def _odd_rows(weight: Complex[Tensor, "i o *modes"]) -> list[int]:
    """Return the padding, as ``F.pad`` takes it, that puts a row in front of every axis with an odd
    number of rows."""
    padding: list[int] = []
    for n in reversed(weight.shape[2:-1]):
        padding += [n % 2, 0]
    return padding


def _skip_weight(skip: nn.Module) -> Float[Tensor, "o i"] | Float[Tensor, " o"]:
    """Return the weight of a 1×1 convolution ``(out, in, 1)`` or a soft gate ``(1, channels, 1, …)``."""
    state = skip.state_dict()
    return state["conv.weight"].squeeze(-1) if "conv.weight" in state else state["weight"].flatten()


def _linear_layers(name: str, convolutions: nn.ModuleList) -> dict[str, Float[Tensor, " ..."]]:
    """Return the state of one linear layer, or of an MLP with its activation in between."""
    state = {}
    for i, layer in enumerate(convolutions):
        conv = cast(nn.Conv1d, layer)
        prefix = name if len(convolutions) == 1 else f"{name}.{2 * i}"
        state[f"{prefix}.weight"] = conv.weight.detach().flatten(1)
        state[f"{prefix}.bias"] = cast(Tensor, conv.bias).detach()
    return state
