"""``sobolev import``: another tool's data set as one of sobolev's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sobolev.commands.options import Commands, add

if TYPE_CHECKING:
    import xarray as xr

_IMPORT = """\
Make a sobolev data set of files of yours or of others. Of your own files (NetCDF-3 and -4, Zarr, HDF5, .npz, .npy,
.mat, .pt) name the fields, by --outputs and --inputs; outputs with a time need no inputs. The layouts of The Well,
PDEBench, neuralop and the original FNO's .mat files are recognised. What a file does not say is asked for, not guessed.

examples:
  sobolev import mine.nc data/mine --inputs kappa --outputs head --sample run --boundary neumann
  sobolev import a.npy u.npy data/mine --inputs a --outputs u --length 1 --boundary periodic
  sobolev import winds.nc data/winds --outputs uwnd,vwnd
  sobolev import shock.mat data/shock --outputs usol --boundary dirichlet
  sobolev import NavierStokes_V1e-3_N5000_T50.mat data/ns --splits train=1000 --splits test=200
  sobolev import train=darcy_train_16.pt test=darcy_test_16.pt data/darcy --boundary neumann --length 1
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "import", run, "read another tool's data set into a sobolev one", _IMPORT)
    sub.add_argument(
        "source",
        nargs="+",
        help="a file, a folder (The Well, Zarr) or SPLIT=FILE for each split; several files are joined",
    )
    sub.add_argument("path", help="folder of the new data set")
    sub.add_argument(
        "--from",
        dest="layout",
        choices=("well", "pdebench", "neuralop", "fno-mat"),
        help="layout of the source (default: recognised by its content)",
    )
    for name, of in (("inputs", "predict from"), ("outputs", "predict")):
        sub.add_argument(
            f"--{name}",
            action="extend",
            type=_words,
            default=[],
            metavar="NAME",
            help=f"fields to {of}, by their names in the file; commas between several, or repeat",
        )
    _declare_dimensions(sub)
    sub.add_argument(
        "--symmetries",
        action="extend",
        type=_words,
        default=[],
        metavar="NAME",
        help="of the equation, such as reflections or shifts, to augment and average with; repeat",
    )
    sub.add_argument(
        "--conserved",
        action="append",
        type=_output_and_input,
        default=[],
        metavar="OUTPUT[=INPUT]",
        help="output whose integral is that of an input, or of its own first frame; repeat",
    )
    sub.add_argument("--split", default="train", help="where all samples go (default: train)")
    sub.add_argument(
        "--splits",
        action="append",
        type=_share,
        metavar="SPLIT=COUNT",
        help="cut one file into splits, by count (train=1000) or fraction (train=0.8); repeat",
    )
    sub.add_argument(
        "--boundary",
        action="append",
        type=_axis_and_value,
        metavar="[AXIS=]KIND",
        help="periodic, dirichlet or neumann, for all axes or one, where the file does not say",
    )
    sub.add_argument(
        "--length",
        action="append",
        type=_axis_and_value,
        metavar="[AXIS=]LENGTH",
        help="extent of the axes, where the file does not say",
    )
    sub.add_argument("--without", action="append", default=[], help="variable to leave out; repeat")
    sub.add_argument(
        "--dtype", choices=("float32", "float64"), help="on disk (default: the file's)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace a data set in PATH")


def _declare_dimensions(sub: argparse.ArgumentParser) -> None:
    """Declare what tells dimensions apart and says where nodes lie."""
    sub.add_argument(
        "--sample", type=_words, default=[], metavar="DIM", help="dimension (or several) of samples"
    )
    sub.add_argument("--time", metavar="DIM", help="dimension of time")
    sub.add_argument(
        "--select",
        action="append",
        type=_pair(int, "DIM=NUMBER, a whole number"),
        default=[],
        metavar="DIM=NUMBER",
        help="take one place of a dimension, counted from 0; repeat",
    )
    sub.add_argument(
        "--dims",
        action="append",
        type=_pair(_words, "FIELD=DIM,DIM,…"),
        default=[],
        metavar="FIELD=DIM,DIM,…",
        help="dimensions of an array that has no names for them; repeat",
    )
    sub.add_argument(
        "--coordinates",
        action="append",
        type=_pair(_numbers, "DIM=FIRST:LAST or DIM=A,B,C,…, in numbers"),
        default=[],
        metavar="DIM=FIRST:LAST",
        help="where the nodes, or frames, of a dimension lie that has none: ends, or A,B,C,…; repeat",
    )
    sub.add_argument(
        "--regrid",
        action="append",
        type=_pair(int, "DIM=NODES, a whole number"),
        default=[],
        metavar="DIM=NODES",
        help="interpolate onto so many evenly spaced nodes; repeat",
    )
    sub.add_argument(
        "--mask",
        metavar="NAME",
        help="variable that is 1 in the domain of the fields and 0 outside, or nan for their gaps",
    )
    sub.add_argument("--radius", type=float, default=1.0, help="of a sphere (default: 1)")


def run(options: argparse.Namespace) -> int:
    from sobolev.datasets import Manifest, import_data
    from sobolev.grids.description import in_words

    pairs = [source.partition("=")[::2] for source in options.source if "=" in source]
    if pairs and len(pairs) < len(options.source):
        raise ValueError(f"give files alone, or SPLIT=FILE for each; got {options.source}")
    common = {
        "splits": dict(options.splits) if options.splits else None, "boundary": _by_axis(options.boundary),
        "length": _by_axis(options.length, float), "symmetries": options.symmetries,
        "conserved": dict(options.conserved), "dtype": options.dtype, "overwrite": options.overwrite,
    }  # fmt: skip
    if options.inputs or options.outputs:
        path = _own_fields(options, pairs, common)
    elif len(options.source) > 1 and not pairs:
        raise ValueError(
            f"of {len(options.source)} files name the fields (--outputs, --inputs), or give SPLIT=FILE for each split"
        )
    else:
        path = import_data(
            dict(pairs) or options.source[0], options.path, options.layout, split=options.split,
            without=options.without, **common,
        )  # fmt: skip
    manifest = Manifest.read(path)
    total = ", ".join(f"{split} {count}" for split, count in manifest.requested.items())
    print(f"{path}: {total} samples")
    print(f"on {in_words(manifest.grid)}")
    times = manifest.times
    print(
        f"{len(times)} frames from {times[0]:g} to {times[-1]:g} {manifest.time_units}".removesuffix(
            " 1"
        )
        if times
        else "no time"
    )
    for role, variables in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        print(f"{role}: {', '.join(v['name'] for v in variables) or 'their own first frames'}")
    return 0


def _own_fields(
    options: argparse.Namespace, pairs: list[tuple[str, str]], common: dict[str, Any]
) -> Path:
    """Store fields that the user names."""
    from sobolev.datasets import store_fields
    from sobolev.datasets.layouts.opening import open_fields

    if options.layout or options.without:
        raise ValueError(
            "--from and --without are for the layouts of others; fields that are named by --inputs and --outputs are "
            "taken, all others left out"
        )
    groups: dict[str, list[str]] = {}
    for split, file in pairs or [(options.split, one) for one in options.source]:
        groups.setdefault(split, []).append(file)
    with ExitStack() as stack:
        opened = {
            split: [
                _selected(one, dict(options.select))
                for one in open_fields(
                    files, stack, fields=[*options.inputs, *options.outputs],
                    dims=dict(options.dims), coordinates=dict(options.coordinates),
                )
            ]
            for split, files in groups.items()
        }  # fmt: skip
        return store_fields(
            opened, options.path, inputs=options.inputs, outputs=options.outputs, sample=options.sample,
            time=options.time, mask=options.mask, radius=options.radius, regrid=dict(options.regrid), **common,
        )  # fmt: skip


def _selected(dataset: xr.Dataset, places: dict[str, int]) -> xr.Dataset:
    """Return the dataset at these places of its dimensions."""
    for dim, place in places.items():
        if dim not in dataset.sizes:
            raise ValueError(
                f"--select names the dimension {dim!r}; there are {', '.join(map(str, dataset.sizes))}"
            )
        if not -dataset.sizes[dim] <= place < dataset.sizes[dim]:
            raise ValueError(
                f"--select {dim}={place} is not there: {dim!r} has {dataset.sizes[dim]} places, counted from 0"
            )
    return dataset.isel(places)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.replace(":", ",").split(",")]


def _output_and_input(text: str) -> tuple[str, str]:
    output, _, source = text.partition("=")
    return output, source or output


def _pair(kind: Callable[[str], Any], form: str) -> Callable[[str], tuple[str, Any]]:
    """Return a reader of NAME=VALUE, whose form an error says in words."""

    def read(text: str) -> tuple[str, Any]:
        name, _, value = text.partition("=")
        try:
            found = kind(value)
        except ValueError:
            found = []
        if not name or found == []:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form {form}")
        return name, found

    return read


def _share(text: str) -> tuple[str, int | float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share) if "." in share else int(share)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SPLIT=COUNT or SPLIT=FRACTION, such as train=1000 or train=0.8"
        ) from None


def _axis_and_value(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    return (axis, value) if equals else ("", text)


def _by_axis(pairs: list[tuple[str, str]] | None, kind: Callable[[str], Any] = str) -> Any:
    """Return one value for all axes, or one for each that is named."""
    if not pairs:
        return None
    try:
        values = {axis: kind(value) for axis, value in pairs}
    except ValueError:
        raise ValueError(f"--length takes a number, got {', '.join(v for _, v in pairs)}") from None
    if "" in values and len(values) > 1:
        raise ValueError("give one value for all axes, or AXIS=VALUE for each")
    return values.get("", values)
