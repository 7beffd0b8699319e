"""Any ``xr.Dataset`` into our store: own data, of whatever origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sobolev.datasets.layouts.coordinates import times_of
from sobolev.datasets.layouts.dimensions import LOOKED_AT, Dimensions, FieldWords
from sobolev.datasets.layouts.domains import masked
from sobolev.datasets.layouts.foreign import Foreign, Lazy, unknown
from sobolev.datasets.layouts.storing import Declared, Part, check_words, store
from sobolev.grids.checks import did_you_mean
from sobolev.grids.variables import Parameter, Variable

Source = xr.Dataset | Sequence[xr.Dataset]
"""The samples of a split, in one dataset or in several that follow one another."""
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")
"""Attributes of values that were never decoded."""


def store_fields(
    dataset: Source | Mapping[str, Source],
    path: str | Path,
    *,
    outputs: str | Sequence[str],
    inputs: str | Sequence[str] = (),
    sample: str | Sequence[str] = (),
    time: str | None = None,
    boundary: str | Mapping[str, str] | None = None,
    length: float | Mapping[str, float] | None = None,
    radius: float = 1.0,
    regrid: Mapping[str, int] | None = None,
    mask: str | None = None,
    splits: Mapping[str, int | float] | None = None,
    symmetries: Sequence[str] = (),
    conserved: Mapping[str, str] | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Make a data set of your own fields, to train on.

    Names, units, coordinates and times are read from the dataset as CF has them. What it does not say is
    asked for by the argument that answers. Values are read a shard at a time, so that a dataset that is
    opened lazily, or in Dask's chunks, may be larger than memory.

    * Dimensions may come in any order, coordinates may fall, longitudes run from −180° or from 0°.
      Latitudes and longitudes around the globe make a sphere. Other dimensions of space make axes, which
      need a ``boundary``, and a ``length`` where there is no coordinate.
    * Complex fields become two, ``NAME_real`` and ``NAME_imag``. Packed integers and fill values are
      decoded. The end of a circle that is stored twice is left out once.
    * Inputs with a dimension of samples alone are numbers: a viscosity, a depth. They are normalised by their
      logarithms where they are positive and the largest is ten times the smallest.
    * Inputs without samples are the same for all. Inputs on other numbers of nodes than the outputs are
      resampled.
    * Samples that hold values that are not finite are kept and flagged in ``status``, and not trained on.

    Args:
        dataset: an ``xr.Dataset``, several whose samples follow one another, or one (or several) for each
            split.
        path: folder of the data set to make.
        outputs, inputs: names of the variables to predict, and of those to predict from. Outputs with a
            time are trajectories, and start from their own frames; inputs beside them do not move.
        sample: the dimension, or dimensions, along which samples lie; found by names such as ``sample``,
            ``run`` or ``member`` if left out. Without any there is one sample.
        time: the dimension of time; found by CF's attributes, or its name.
        boundary: ``"periodic"``, ``"dirichlet"`` (fields are zero at both ends, which are nodes) or
            ``"neumann"`` (all others: nodes are centres of cells), for all axes or by name.
        length: of all axes or by name; overrides what coordinates say.
        radius: of a sphere.
        regrid: nodes of dimensions that are to be interpolated by cubic splines, where they are not evenly
            spaced, or are no nodes of a sphere's grid.
        mask: where fields fill a part of their box: a variable that is 1 in the domain and 0 outside, or
            ``"nan"`` for the nodes at which all fields have values. It becomes the first input field.
        splits: how many samples go to each split, in their order, as whole numbers or as fractions; those
            of ``test`` are the last.
        symmetries, conserved: what is known of the equation, as a recipe declares it (``Recipe``).
        dtype: ``"float32"`` or ``"float64"`` on disk; float64 if any field needs it, by default.
        overwrite: replace a data set that is there.
        progress: show a progress bar on a terminal.

    Returns:
        ``path``.

    Raises:
        ValueError: for a variable that is not there, dimensions that cannot be told apart, a grid that is
            not known, gaps in the fields, and splits that do not fit.
        FileExistsError: if the folder holds something else and ``overwrite`` is not set.
        OSError: if the dataset cannot be read or the data set not be written.

    >>> store_fields(xr.open_dataset("mine.nc"), "data/mine", inputs="kappa", outputs="head", sample="run",
    ...              boundary="neumann", splits={"train": 0.8, "test": 0.2})                # doctest: +SKIP
    """
    path = Path(path).resolve()
    sources = (
        dataset
        if isinstance(dataset, Mapping) and not isinstance(dataset, xr.Dataset)
        else {"train": dataset}
    )
    if splits is not None and len(sources) > 1:
        raise ValueError(
            "splits divides the samples of one source; this one has a source for each split"
        )
    check_words(splits, list(sources), dtype)
    words = FieldWords(
        boundary, length, [], radius, dict(regrid or {}), _names(inputs), _names(outputs), _names(sample), time, mask
    )  # fmt: skip
    parts = [
        Part(
            split,
            f"{split}: {_origin(one)}" if len(sources) > 1 else _origin(one),
            fields_of(one, words),
        )
        for split, source in sources.items()
        for one in ([source] if isinstance(source, xr.Dataset) else source)
    ]
    origin = {
        "source": [part.name for part in parts] if len(parts) > 1 else _origin(_first(sources)),
        "layout": "fields",
        "given": words.said,
    }
    declared = Declared(tuple(symmetries), dict(conserved or {}))
    store(
        path, parts, origin, declared=declared, splits=splits, dtype=dtype, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip
    return path


def fields_of(dataset: xr.Dataset, words: FieldWords) -> Foreign:
    """Return the fields of a dataset under our names, on our grid.

    Raises:
        ValueError: as ``store_fields``.
    """
    dataset = _decoded(dataset)
    words = _with_names_of(dataset, words)
    names = [*words.inputs, *words.outputs]
    layout = Dimensions.of(dataset, words)
    words.check_heard(dataset, layout.space.grid)
    if layout.time is None and not words.inputs and words.mask is None:
        raise ValueError(
            f"there is nothing to predict {', '.join(words.outputs)} from: name inputs (--inputs), or the dimension of "
            f"time (--time), as outputs with a time start from their own frames; there are {_listed(dataset)}"
        )
    fields: dict[str, Lazy] = {}
    parameters = []
    variables: list[list[Variable]] = [[], []]
    for name in names:
        output = name in words.outputs
        if not output and layout.is_number(name):
            lazy = layout.numbers(name)
            parameter = _parameter(dataset[name], lazy)
            fields[parameter.name] = lazy
            parameters.append(parameter)
            continue
        lazy = layout.lazy(name, output=output)
        for variable, part in _parts(dataset[name], lazy):
            fields[variable.name] = part
            variables[output].append(variable)
    frames: list[float] = []
    units = "1"
    if layout.time is not None:
        frames, units = times_of(dataset, layout.time)
    inputs, outputs = variables
    foreign = Foreign(
        fields, layout.space.grid, inputs, outputs, times=frames, time_units=units,
        references=str(dataset.attrs.get("references", "not known")), parameters=parameters,
    )  # fmt: skip
    foreign = _check_gaps(foreign) if words.mask is None else masked(foreign, layout, words.mask)
    _check_borders(foreign)
    return foreign


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with packed values unpacked and fill values as NaN, where nobody did it before."""
    packed = any(key in v.attrs for v in dataset.variables.values() for key in PACKING)
    return xr.decode_cf(dataset, decode_times=False) if packed else dataset


def _with_names_of(dataset: xr.Dataset, words: FieldWords) -> FieldWords:
    """Return the words with the dataset's own names of the fields.

    Raises:
        ValueError: for names that are not there, or twice.
    """
    if not words.outputs:
        raise ValueError(f"name the variables to predict as outputs; there are {_listed(dataset)}")
    names = [*words.inputs, *words.outputs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"{', '.join(sorted(twice))} cannot be input and output at once; outputs with a time start from their own "
            "frames"
        )
    inputs, outputs = (
        tuple(_found(dataset, n) for n in some) for some in (words.inputs, words.outputs)
    )
    return replace(words, inputs=inputs, outputs=outputs)


def _found(dataset: xr.Dataset, name: str) -> str:
    """Return the name of a variable; arrays of files are found by the names that they have there."""
    there = [str(known) for known in dataset.data_vars]
    plain = unknown([name], "")[0].name
    if name in there or (name in dataset.coords and name not in dataset.dims):
        return name
    if plain in there:
        return plain
    raise ValueError(
        f"there is no variable {name!r}; there are {_listed(dataset)}. {did_you_mean(name, there)}".strip()
    )


def _listed(dataset: xr.Dataset) -> str:
    """Return the variables of a dataset with their dimensions, as a person reads them."""
    listed = (f"{name} ({', '.join(map(str, v.dims))})" for name, v in dataset.data_vars.items())
    return ", ".join(listed) or "none"


def _parts(array: xr.DataArray, lazy: Lazy) -> list[tuple[Variable, Lazy]]:
    """Return a variable with its values: two of them, where they are complex."""
    (plain,) = unknown([str(array.name)], "the dataset")
    about = Variable(
        plain.name,
        str(array.attrs.get("long_name", array.attrs.get("standard_name", array.name))),
        str(array.attrs.get("units", "unknown")),
    )
    if array.dtype.kind != "c":
        return [(about, lazy)]
    halves: list[tuple[str, str, Callable[..., Any]]] = [
        ("real", "real part of", np.real),
        ("imag", "imaginary part of", np.imag),
    ]
    return [
        (
            Variable(f"{about.name}_{suffix}", f"{words} {about.long_name}", about.units),
            lazy.then(part),
        )
        for suffix, words, part in halves
    ]


def _parameter(array: xr.DataArray, lazy: Lazy) -> Parameter:
    """Return a number of the samples with the range that it has.

    Raises:
        ValueError: for one that is the same in all samples, or not finite.
    """
    ((about, _),) = _parts(array, lazy)
    values = lazy.read(slice(0, *lazy.shape)).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            f"the numbers {about.name} are not finite in all samples; drop those samples"
        )
    low = float(values.min())
    high = float(values.max())
    if low == high:
        raise ValueError(
            f"{about.name} is {low:g} in all samples, of which nothing can be learned; leave it out"
        )
    scale = "log" if low > 0 and high >= 10 * low else "linear"
    return Parameter(about.name, about.long_name, about.units, low, high, scale)


def _check_gaps(foreign: Foreign) -> Foreign:
    """Refuse fields that have no value at some nodes whatever the sample, judged by the first ones."""
    few = slice(0, min(LOOKED_AT, foreign.count))
    for v in (*foreign.inputs, *foreign.outputs):
        gaps = ~np.isfinite(foreign.fields[v.name].read(few))
        always = gaps.all(axis=tuple(range(gaps.ndim - foreign.grid.ndim)))
        if always.any():
            raise ValueError(
                f"{v.name} has no value at {int(always.sum())} of {always.size} nodes in any of the first samples; if "
                "fields fill a part of their box, pass mask='nan' (--mask nan), or the name of a mask"
            )
    return foreign


def _check_borders(foreign: Foreign) -> None:
    """Refuse outputs on dirichlet axes that are not zero at the ends, judged by the first samples.

    A surrogate makes them zero there.
    """
    for place, axis in enumerate(getattr(foreign.grid, "axes", ())):
        for v in foreign.outputs if axis.boundary == "dirichlet" else ():
            few = slice(0, min(LOOKED_AT, foreign.count))
            values = np.abs(foreign.fields[v.name].read(few))
            ends = np.take(values, [0, -1], axis=place - foreign.grid.ndim)
            if np.nanmax(ends, initial=0.0) > 1e-2 * np.nanmax(values, initial=0.0):
                raise ValueError(
                    f"{v.name} is not zero at the ends of {axis.name!r}, as fields on a dirichlet axis are; pass "
                    f"boundary={{{axis.name!r}: 'neumann'}} (--boundary {axis.name}=neumann) for fields that are free"
                )


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _first(sources: Mapping[str, Source]) -> xr.Dataset:
    source = next(iter(sources.values()))
    return source if isinstance(source, xr.Dataset) else source[0]


def _origin(dataset: xr.Dataset) -> str:
    """Return the name of the file that a dataset was opened from, where it is known."""
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(
            f"store_fields takes xr.Dataset, got {type(dataset).__name__}; an array has .to_dataset(name=...)"
        )
    source = dataset.encoding.get("source")
    return re.split(r"[\\/]", str(source))[-1] if source else "a dataset in memory"
