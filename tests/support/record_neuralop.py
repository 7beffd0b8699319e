"""Record small networks of neuralop, where it is installed: ``pip install neuraloperator==2.0.0``, then

cd tests && python -m support.record_neuralop
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
from neuralop.models import FNO
from safetensors.torch import save_file
from torch import Tensor, nn

from support.neuralop_networks import PEERS, RECORDED, REFUSED, described


def peer(modes: tuple[int, ...], **options: Any) -> nn.Module:
    """A neuralop FNO as if trained: no weight is at its initial zero or one."""
    model = FNO(
        n_modes=modes, in_channels=2, out_channels=3, hidden_channels=4, n_layers=2, **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_complex():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def main() -> None:
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    descriptions: dict[str, str] = {}
    for name, (modes, space, options) in PEERS.items():
        model, u = peer(modes, **options), torch.randn(2, 2, *space)
        with torch.no_grad():
            model(u)  # in training mode: running statistics move
            found = {"input": u, "output": model.eval()(u)}
        descriptions[name] = json.dumps(described(model, found, "model"))
        tensors |= {f"{name}/{key}": tensor.contiguous().clone() for key, tensor in found.items()}
    for name, options in REFUSED.items():
        descriptions[name] = json.dumps(described(peer((8, 8), **options), {}, "model"))
    RECORDED.parent.mkdir(exist_ok=True)
    save_file(tensors, RECORDED, descriptions)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
