"""``sobolev onnx``: a surrogate as one ONNX file."""

from __future__ import annotations

import argparse
import json

from sobolev.commands.options import RUN, Commands, add, add_operators

_ONNX = """\
Write one ONNX file for any batch and resolution, normalisation included. It takes `inputs`, float32 (batch, inputs,
space...) in physical units, and gives `outputs`. Names, units, grid and provenance are in its metadata. It is compared
with torch at three resolutions before it takes its place. Needs pip install 'sobolev[onnx]'.

example:
  sobolev onnx runs/burgers-fno burgers.onnx
  python -c "import onnxruntime as o, numpy as n; print(o.InferenceSession('burgers.onnx').run(
             None, {'inputs': n.zeros((1, 1, 2048), n.float32)})[0].shape)"
"""


def declare(commands: Commands) -> None:
    sub = add(
        commands, "onnx", run, "write a surrogate as one ONNX file for every resolution", _ONNX
    )
    sub.add_argument("run", help=RUN)
    sub.add_argument("file", help="ONNX file to write; one that is there is replaced")
    add_operators(sub)


def run(options: argparse.Namespace) -> int:
    from sobolev.commands.classes import operators_of
    from sobolev.grids.description import by
    from sobolev.surrogates import Surrogate

    surrogate = Surrogate.load(options.run, operators=operators_of(options))
    file = surrogate.export_onnx(options.file)
    import onnx

    stated = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    least = by(json.loads(stated["least_sizes"]))
    print(f"{file}: any batch, any {' × '.join(surrogate.grid.dims)} of at least {least} nodes")
    return 0
