"""Small networks of neuralop 2.0, as they are where it is installed, and as recorded where it is not.

``tests/support/record_neuralop.py`` writes ``tests/data/neuralop.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

RECORDED = Path(__file__).parents[1] / "data" / "neuralop.safetensors"
Options = dict[str, Any]
PEERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Options]] = {
    "1-d": ((12,), (33,), {}),
    "2-d": ((8, 6), (24, 20), {}),
    "3-d": ((6, 4, 4), (12, 10, 9), {}),
    "odd modes": ((7, 7), (24, 21), {}),
    "instance norm": ((8, 6), (20, 20), {"norm": "instance_norm"}),
    "batch norm": ((8, 6), (20, 20), {"norm": "batch_norm"}),
    "other skips": ((6, 6), (16, 16), {"fno_skip": "soft-gating", "channel_mlp_skip": "linear"}),
    "identity": ((6, 6), (16, 16), {"channel_mlp_skip": "identity"}),
    "no MLP skip": ((6, 6), (16, 16), {"channel_mlp_skip": None}),
    "bare": ((6, 6), (16, 16), {"positional_embedding": None, "lifting_channel_ratio": 0}),
    "ratios": ((6, 6), (16, 16), {"channel_mlp_expansion": 1.5, "projection_channel_ratio": 4}),
    "Tucker": ((6, 6), (16, 16), {"factorization": "Tucker", "rank": 0.3}),
}
"""Modes, sizes of the input, and options of networks that can be loaded."""
REFUSED: dict[str, Options] = {
    "domain_padding": {"domain_padding": 0.1},
    "resolution_scaling_factor": {"resolution_scaling_factor": 2},
    "separable": {"separable": True},
    "preactivation": {"preactivation": True},
    "stabilizer='tanh'": {"stabilizer": "tanh"},
    "non_linearity": {"non_linearity": F.relu},
    "use_channel_mlp=False": {"use_channel_mlp": False},
    "channel_mlp_dropout": {"channel_mlp_dropout": 0.1},
    "complex_data": {"complex_data": True},
    "norm GroupNorm": {"norm": "group_norm"},
    "fno_skip='identity'": {"fno_skip": "identity"},
    "fno_block_precision='mixed'": {"fno_block_precision": "mixed"},
    "max_n_modes": {"max_n_modes": (12, 12)},
}
"""Options of networks that cannot, by what is said of them."""

ATTRIBUTES = (
    "channel_mlp_dropout", "channel_mlp_skip", "complex_data", "domain_padding", "fno_block_precision",
    "fno_skip", "grid_boundaries", "hidden_channels", "in_channels", "max_n_modes", "n_layers", "n_modes",
    "non_linearity", "norm", "out_channels", "positional_embedding", "preactivation",
    "resolution_scaling_factor", "separable", "stabilizer", "training", "use_channel_mlp",
)  # fmt: skip
"""Of a network's modules, beside their submodules and weights, where they have them."""


def described(module: nn.Module, tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    """A module as JSON; its weights are put among the tensors."""
    if isinstance(dense := getattr(module, "to_tensor", None), Callable):
        tensors[name] = dense().detach()
        return {"class": "Dense", "weights": {"dense": name}}
    found: dict[str, Any] = {"class": type(module).__name__}
    own = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    for key, tensor in own.items():
        tensors[f"{name}.{key}"] = tensor.detach()
    found["weights"] = {key: f"{name}.{key}" for key in own}
    children = module.named_children()
    found["children"] = {key: described(child, tensors, f"{name}.{key}") for key, child in children}
    present = {key: getattr(module, key) for key in ATTRIBUTES if hasattr(module, key)}
    present = {key: plain(value) for key, value in present.items() if key not in found["children"]}
    found["attributes"] = {
        k: v for k, v in present.items() if not isinstance(v, nn.Module | Tensor)
    }
    return found


def plain(value: Any) -> Any:
    """A function by its name, an iterable as a list."""
    if callable(value) and not isinstance(value, nn.Module):
        return {"function": value.__name__}
    return [plain(v) for v in value] if isinstance(value, list | tuple | torch.Size) else value


class Dense(nn.Module):
    """A kernel's weights, factorised or not."""

    dense: Tensor

    def to_tensor(self) -> Tensor:
        return self.dense


def rebuilt(description: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """A module with the described one's class name, attributes, submodules and weights, and no ``forward``."""
    kind = description["class"]
    if kind == "ModuleList":
        return nn.ModuleList(rebuilt(d, tensors) for d in description["children"].values())
    made = (
        Dense()
        if kind == "Dense"
        else type(kind, (nn.Module,), {"__module__": "neuralop.recorded"})()
    )
    for key, name in description["weights"].items():
        made.register_buffer(key, tensors.get(name))  # those that are refused come without
    for key, child in description.get("children", {}).items():
        setattr(made, key, rebuilt(child, tensors))
    for key, value in description.get("attributes", {}).items():
        function = value["function"] if isinstance(value, dict) else None
        setattr(made, key, getattr(F, function, function) if function else value)
    return made


def recorded(name: str) -> tuple[nn.Module, Tensor | None, Tensor | None]:
    """What stands for a recorded network, its input and its output."""
    with safe_open(RECORDED, "pt") as file:
        description = json.loads(file.metadata()[name])
        keys = [key for key in file.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        tensors = {key.partition("/")[2]: file.get_tensor(key) for key in keys}
    return rebuilt(description, tensors), tensors.get("input"), tensors.get("output")
