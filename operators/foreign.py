"""Weights of Fourier neural operators that were trained with other libraries.

Nothing is unpickled here: a model or a ``state_dict`` is given. What cannot be represented is
refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sobolev.operators.fno import FNO

_NORMS = {"InstanceNorm": "instance", "BatchNorm": "batch"}


def from_neuralop(cls: type[FNO], model: Any) -> FNO:
    """The same network as a neuralop 2.0 ``FNO`` or ``TFNO``, dense, and in its mode, training or
    evaluation.

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
        raise ValueError(f"from_neuralop needs a neuralop FNO, got a {type(model).__name__}")
    _refuse_neuralop(model, blocks)
    weights = [conv.weight.to_tensor().detach() for conv in blocks.convs]
    halves = [-(-n // 2) for n in weights[0].shape[2:-1]]
    lifting, projection = model.lifting.fcs, model.projection.fcs
    kind = None if blocks.norm is None else type(blocks.norm[0]).__name__
    operator = cls(
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
    return _loaded(operator, state).train(model.training)


def from_original(
    cls: type[FNO],
    state: Mapping[str, Tensor],
    *,
    padding: int = 0,
    positions: bool | str = False,
    norm: str | None = None,
) -> FNO:
    """The same network as one of the original repository's scripts (``fourier_1d.py``,
    ``fourier_2d.py``, ``fourier_2d_time.py``, ``fourier_3d.py``), from its ``state_dict``.

    Read are the layouts with ``fc0``, ``fc1``, ``fc2`` and with ``p``, ``q.mlp1``, ``q.mlp2``;
    ``conv0`` … with ``weights1`` … complex or as pairs of reals; ``w0`` … ; with or without ``mlp0``
    …. The fields are ours, (batch, channels, *space), not channels-last. The activation must have
    been GELU, as in the scripts since August 2021: a ``state_dict`` does not tell.

    Args:
        state: the ``state_dict``.
        padding: the script's ``self.padding`` where its ``F.pad`` is in use. Only 0 can be loaded.
        positions: False: the caller appends the coordinate channels, in the script's order.
            ``"closed"``: the operator appends them last, from 0 to 1 with both ends, as the scripts
            do in ``get_grid``.
        norm: ``"instance"`` for the script ``fourier_2d_time.py`` with its ``self.norm``, which has
            no weights.

    Raises:
        ValueError: for padding by cells (the padded layers lie on a grid that depends on the
            resolution; ours are extended by a fraction of the domain), batch normalisation that was
            in use (the scripts that have it have ReLU), positions or a norm that no script has, or
            keys that fit none of the layouts.
    """
    if positions is not False and positions != "closed":
        raise ValueError(
            f"positions needs False or 'closed', as the original's scripts have them; got {positions!r}"
        )
    if norm not in (None, "instance"):
        raise ValueError(
            f"norm needs None or 'instance', as the original's scripts have; got {norm!r}"
        )
    if padding:
        raise ValueError(
            f"the original's padding by {padding} cells cannot be loaded: it ties the weights to one "
            "grid, while ours extends axes by a fraction of their length; train anew with "
            "boundary='dirichlet'"
        )
    state = _renamed(state)
    kernels = [_original_kernel(state, i) for i in range(_depth(state))]
    *block, _, _, _ = kernels[0].shape
    width, channels = state["lift.weight"].shape
    ndim = len(block)
    mlp = any(key.startswith("blocks.0.mlp.") for key in state)
    if norm is not None and not mlp:
        raise ValueError(f"norm={norm!r} is for the scripts with mlp0 …; these weights have none")
    operator = cls(
        channels - ndim if positions else channels,
        state["project.2.weight"].shape[0],
        [*(n // 2 for n in block[:-1]), block[-1]],
        width,
        len(kernels),
        positions=positions,
        projection=state["project.0.weight"].shape[0],
        mlp=state["blocks.0.mlp.0.weight"].shape[0] / width if mlp else None,
        norm=norm,
    )
    layers = {key: value for key, value in state.items() if ".weights" not in key}
    return _loaded(
        operator, layers | {f"blocks.{i}.kernel.weight": w for i, w in enumerate(kernels)}
    )


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


def _neuralop_block(name: str, blocks: Any, i: int, weight: Tensor) -> dict[str, Tensor]:
    conv, n = blocks.convs[i], weight.ndim - 2
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


def _odd_rows(weight: Tensor) -> list[int]:
    """The padding, as ``F.pad`` takes it, of axes with an odd number of rows by a row in front."""
    padding: list[int] = []
    for n in reversed(weight.shape[2:-1]):
        padding += [n % 2, 0]
    return padding


def _skip_weight(skip: nn.Module) -> Tensor:
    """Of a 1×1 convolution ``(out, in, 1)`` or a soft gate ``(1, channels, 1, …)``."""
    state = skip.state_dict()
    return state["conv.weight"].squeeze(-1) if "conv.weight" in state else state["weight"].flatten()


def _linear_layers(name: str, convolutions: nn.ModuleList) -> dict[str, Tensor]:
    """The state of one linear layer, or of an MLP with its activation in between."""
    state = {}
    for i, layer in enumerate(convolutions):
        conv = cast(nn.Conv1d, layer)
        prefix = name if len(convolutions) == 1 else f"{name}.{2 * i}"
        state[f"{prefix}.weight"] = conv.weight.detach().flatten(1)
        state[f"{prefix}.bias"] = cast(Tensor, conv.bias).detach()
    return state


_ORIGINAL_NAMES = (
    (r"(?:fc0|p)\.(weight|bias)", r"lift.\1"),
    (r"(?:fc1|q\.mlp1)\.(weight|bias)", r"project.0.\1"),
    (r"(?:fc2|q\.mlp2)\.(weight|bias)", r"project.2.\1"),
    (r"w(\d+)\.(weight|bias)", r"blocks.\1.skip.\2"),
    (r"mlp(\d+)\.mlp1\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (r"mlp(\d+)\.mlp2\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (r"conv(\d+)\.weights([1-4])", r"blocks.\1.weights\2"),
)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With our names, and 1×1 convolutions as matrices."""
    inside = all(key.startswith("conv1.") for key in state)  # the first scripts wrap the network
    result, unknown = {}, []
    for key, value in state.items():
        key = key.removeprefix("conv1.") if inside else key
        name = next((re.sub(a, b, key) for a, b in _ORIGINAL_NAMES if re.fullmatch(a, key)), None)
        if re.fullmatch(r"bn\d+\..*", key):
            if key.endswith("num_batches_tracked") and value.any():
                raise ValueError(
                    f"these weights were trained with batch normalisation ({key}={int(value)}); the "
                    "scripts that apply it have ReLU, which FNO does not"
                )
        elif name is None:
            unknown.append(key)
        else:
            dense = key.endswith("weight") and value.ndim > 2
            result[name] = value.detach().flatten(1) if dense else value.detach()
    missing = _expected(result) - set(result)
    if unknown or missing:
        raise ValueError(
            "the keys are not those of the original FNO scripts: "
            + (f"{', '.join(unknown)} unknown" if unknown else f"no {', '.join(sorted(missing))}")
        )
    return result


def _expected(state: Mapping[str, Tensor]) -> set[str]:
    """What a network has that has these keys: the outer layers, and in every block up to the last one
    what any of them has."""
    outer = {
        f"{n}.{part}" for n in ("lift", "project.0", "project.2") for part in ("weight", "bias")
    }
    blocks = [key.split(".", 2)[1:] for key in state if key.startswith("blocks.")]
    names = {"weights1", "skip.weight", "skip.bias"} | {name for _, name in blocks}
    depth = 1 + max((int(i) for i, _ in blocks), default=0)
    return outer | {f"blocks.{i}.{name}" for i in range(depth) for name in names}


def _depth(state: Mapping[str, Tensor]) -> int:
    return sum(key.endswith(".weights1") for key in state)


def _original_kernel(state: Mapping[str, Tensor], i: int) -> Tensor:
    """The weight of block ``i``, ``(*block, in, out, 2)``, from one to four corners of the spectrum:
    weights2 has negative frequencies on the first axis, weights3 on the second, weights4 on both."""
    corners = [state[k] for j in range(1, 5) if (k := f"blocks.{i}.weights{j}") in state]
    if not corners[0].is_complex():
        corners = [torch.view_as_complex(corner.contiguous()) for corner in corners]
    for axis in range(2, corners[0].ndim - 1):
        corners = [
            torch.cat([negative, positive], dim=axis)
            for positive, negative in zip(corners[::2], corners[1::2], strict=True)
        ]
    return torch.view_as_real(corners[0]).movedim((0, 1), (-3, -2))


def _loaded(operator: FNO, state: dict[str, Tensor]) -> FNO:
    like = state["lift.weight"] if "lift.weight" in state else state["lift.0.weight"]
    operator.to(device=like.device, dtype=like.dtype)
    operator.load_state_dict(state)
    return operator
