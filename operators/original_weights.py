"""Weights of Fourier neural operators that were trained with the original repository's scripts.

Nothing is unpickled here: a ``state_dict`` is given. What cannot be represented is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sobolev.operators.base import with_weights
from sobolev.operators.fno import FNO

State = Mapping[str, Shaped[Tensor, " ..."]]

_ORIGINAL_NAMES = (
    (r"(?:fc0|p)\.(weight|bias)", r"lift.\1"),
    (r"(?:fc1|q\.mlp1)\.(weight|bias)", r"project.0.\1"),
    (r"(?:fc2|q\.mlp2)\.(weight|bias)", r"project.2.\1"),
    (r"w(\d+)\.(weight|bias)", r"blocks.\1.skip.\2"),
    (r"mlp(\d+)\.mlp1\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (r"mlp(\d+)\.mlp2\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (r"conv(\d+)\.weights([1-4])", r"blocks.\1.weights\2"),
)


def fno_from_original(
    state: State,
    *,
    padding: int = 0,
    positions: bool | str = False,
    norm: str | None = None,
) -> FNO:
    """Return the same network as one of the original repository's scripts (``fourier_1d.py``,
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
    _check_options(padding, positions, norm)
    state = _renamed(state)
    kernels = [_original_kernel(state, i) for i in range(_count_blocks(state))]
    *block, _, _, _ = kernels[0].shape
    width, channels = state["lift.weight"].shape
    ndim = len(block)
    mlp = any(key.startswith("blocks.0.mlp.") for key in state)
    if norm is not None and not mlp:
        raise ValueError(f"norm={norm!r} is for the scripts with mlp0 …; these weights have none")
    operator = FNO(
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
    return with_weights(
        operator, layers | {f"blocks.{i}.kernel.weight": w for i, w in enumerate(kernels)}
    )


def _check_options(padding: int, positions: bool | str, norm: str | None) -> None:
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


def _renamed(state: State) -> dict[str, Shaped[Tensor, " ..."]]:
    """Return the state with our names, and 1×1 convolutions as matrices."""
    inside = all(key.startswith("conv1.") for key in state)  # the first scripts wrap the network
    result = {}
    unknown = []
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
    missing = _expected_keys(result) - set(result)
    if unknown or missing:
        raise ValueError(
            "the keys are not those of the original FNO scripts: "
            + (f"{', '.join(unknown)} unknown" if unknown else f"no {', '.join(sorted(missing))}")
        )
    return result


def _expected_keys(state: State) -> set[str]:
    """Return all keys of a network that has these: the outer layers', and in every block up to the last
    one those of any."""
    outer = {
        f"{n}.{part}" for n in ("lift", "project.0", "project.2") for part in ("weight", "bias")
    }
    blocks = [key.split(".", 2)[1:] for key in state if key.startswith("blocks.")]
    names = {"weights1", "skip.weight", "skip.bias"} | {name for _, name in blocks}
    depth = 1 + max((int(i) for i, _ in blocks), default=0)
    return outer | {f"blocks.{i}.{name}" for i in range(depth) for name in names}


def _count_blocks(state: State) -> int:
    return sum(key.endswith(".weights1") for key in state)


def _original_kernel(state: State, i: int) -> Float[Tensor, "*block i o 2"]:
    """Return the weight of block ``i``, ``(*block, in, out, 2)``, from one to four corners of the spectrum:
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
