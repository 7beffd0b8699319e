"""A surrogate as one graph for every batch and resolution: ``torch.export``, and ONNX files."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.store.whole_files import replacing
from sobolev.surrogates.files import weights_of
from sobolev.surrogates.normalised import NormalisedOperator

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_TOLERANCE = 1e-5


def write_onnx(surrogate: NormalisedOperator, about: Mapping[str, Any], path: Path) -> Path:
    """Write what ``Surrogate.export_onnx`` documents; ``about`` becomes the file's metadata."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"ONNX files need {', '.join(missing)}, which is not installed: pip install 'sobolev[onnx]'"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file to write")
    import onnx

    model = copy.deepcopy(surrogate).to("cpu", torch.float32).eval()
    program, least = _program_and_least_sizes(model)
    axes = dict(enumerate(["batch", "", *model.meaning.grid.dims]))
    with _quiet():
        translated = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=["inputs"], output_names=["outputs"],
            dynamic_shapes={"u": {i: name for i, name in axes.items() if name}},
        )  # fmt: skip
    if translated is None:
        raise ArithmeticError("torch.onnx.export returned nothing")
    proto = translated.model_proto
    stated = {**about, "sha256": weights_of(surrogate)[1], "least_sizes": least}
    onnx.helper.set_model_props(proto, {k: json.dumps(v) for k, v in stated.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(proto.SerializeToString())
        for batch, more in ((1, None), (2, 0), (3, 1)):
            sizes = least if more is None else [n + more for n in model.meaning.grid.shape]
            sizes = [max(n, m) for n, m in zip(sizes, least, strict=True)]
            _compare(part, model, (batch, len(model.meaning.inputs), *sizes))
    return path


def exported(
    surrogate: NormalisedOperator, sizes: Sequence[int] | None = None
) -> torch.export.ExportedProgram:
    """Return the surrogate's graph for any batch and sizes, by ``torch.export``, traced at ``sizes``.

    The graph's ``module()`` raises if it is called with sizes for which the graph does not hold.

    Raises:
        ValueError: for an operator that has no such graph.
    """
    operator = surrogate.operator
    name = type(operator).__name__
    if not operator.exportable:
        able = ", ".join(_exportable_names())
        raise ValueError(
            f"this {name} cannot be exported with a free resolution, because it makes tables for each grid anew or "
            f"computes with complex numbers; {able} can. Surrogate.save keeps it for use with torch"
        )
    sizes = _near(surrogate) if sizes is None else sizes
    example = torch.zeros(
        2, len(surrogate.meaning.inputs), *sizes, dtype=torch.float32, device="cpu"
    )
    free = {i: torch.export.Dim.DYNAMIC for i in range(example.ndim) if i != 1}
    try:
        with torch.no_grad():
            return torch.export.export(surrogate, (example,), dynamic_shapes={"u": free})
    except torch._dynamo.exc.UserError as error:
        raise ValueError(
            f"this {name} cannot be exported with a free resolution: {str(error).splitlines()[0]}"
        ) from error


def _near(surrogate: NormalisedOperator) -> list[int]:
    """Return sizes to trace at: close to the training data's, but neither theirs nor one more."""
    return [n + 2 for n in surrogate.meaning.grid.shape]


def _program_and_least_sizes(
    model: NormalisedOperator,
) -> tuple[torch.export.ExportedProgram, list[int]]:
    """Return the graph and the fewest nodes that it takes.

    It is traced near the training grid and, if that lacks modes of the operator, on two, four and
    eight times its nodes.
    """
    for finer in (1, 2, 4, 8):
        sizes = [finer * n for n in _near(model)]
        program = exported(model, sizes)
        least = _least_sizes(
            program.module(), len(model.meaning.inputs), model.meaning.grid.ndim, max(sizes)
        )
        if least:
            return program, least
    raise ValueError(
        f"this {type(model.operator).__name__} cannot be exported with a free resolution: its graph takes only some "
        "resolutions"
    )


def _exportable_names() -> list[str]:
    import sobolev.operators as room

    classes = {name: getattr(room, name) for name in room.__all__}
    return [name for name, c in classes.items() if getattr(c, "exportable", False) is True]


@torch.no_grad()
def _least_sizes(
    graph: Callable[
        [Float[Tensor, "batch channels *space"]], Float[Tensor, "batch outputs *space"]
    ],
    channels: int,
    ndim: int,
    known: int,
) -> list[int]:
    """Return the fewest nodes per axis that the graph takes, found by trial: for all axes together,
    then for each alone.

    The list is empty if the graph takes no number up to about ``known``, where it was traced.
    """

    def takes(sizes: Sequence[int]) -> bool:
        try:
            graph(torch.zeros(1, channels, *sizes, device="cpu"))
        except (AssertionError, RuntimeError):  # a guard of torch.export; an operation below
            return False
        return True

    def least(sizes_of: Callable[[int], list[int]], high: int) -> int:
        low = 1  # does not do: torch.export takes no size to be 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if takes(sizes_of(middle)) else (middle, high)
        return high

    enough = next(
        (n for n in (2**i for i in range(1, known.bit_length() + 1)) if takes([n] * ndim)), 0
    )
    if not enough:
        return []
    common = least(lambda n: [n] * ndim, enough)
    found = [common] * ndim
    for i in range(ndim):
        found[i] = least(functools.partial(_between, found[:i], found[i + 1 :]), common)
    return found


def _between(before: list[int], after: list[int], n: int) -> list[int]:
    return [*before, n, *after]


def _compare(file: Path, model: NormalisedOperator, shape: Sequence[int]) -> None:
    """Run the file on normal noise of the data's scale and refuse it if torch disagrees.

    The yardstick is how far the outputs depart from their means, at least a standard deviation, so
    that an offset hides nothing but its own rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    dice = torch.Generator().manual_seed(0)
    noise = torch.randn(*shape, generator=dice, device="cpu")
    u = model.input_mean + model.input_scale * noise
    with torch.no_grad():
        expected = model(u)
    (found,) = session.run(["outputs"], {"inputs": u.numpy()})
    inside = model.meaning.grid.resized(*expected.shape[2:]).without_border(
        expected - model.output_mean
    )
    scale = model.output_scale.flatten()
    difference = _largest(torch.from_numpy(found) - expected)
    rounding = 2 * torch.finfo(torch.float32).eps * _largest(expected)
    if not bool(
        (difference <= _TOLERANCE * torch.maximum(_largest(inside), scale) + rounding).all()
    ):
        raise ArithmeticError(
            f"the ONNX graph differs from torch by {float((difference / scale).max()):.1e} standard deviations at "
            f"{' × '.join(map(str, shape[2:]))} nodes; no file was written"
        )


def _largest(u: Float[Tensor, "batch channels ..."]) -> Float[Tensor, " channels"]:
    """Return the largest magnitude of each channel."""
    return u.abs().movedim(1, 0).flatten(1).amax(dim=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notices about packages that are not needed, and about axes of one size."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*axis name: .* will not be used.*")
            yield
    finally:
        logger.setLevel(level)
