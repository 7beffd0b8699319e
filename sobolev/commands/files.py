"""Commands from a NetCDF file to a NetCDF file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from sobolev.surrogates import Surrogate


def from_file_to_file(
    options: argparse.Namespace, work: Callable[[Surrogate, xr.Dataset], xr.Dataset]
) -> xr.Dataset:
    """Write to ``options.output`` what ``work`` makes of the surrogate in ``options.run`` and the dataset in
    ``options.input``, and return it.

    Raises:
        OSError: if the input cannot be read, or the output is a folder, a device or a pipe.
        ValueError: if it is the output.
    """
    import xarray as xr

    from sobolev.commands.classes import operators_of
    from sobolev.datasets.store.shards import write_netcdf
    from sobolev.datasets.store.whole_files import place_of
    from sobolev.surrogates import Surrogate

    source = Path(options.input)
    target = Path(options.output)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    if target.resolve() == source.resolve():
        raise ValueError(f"input and output are the same file, {source}; choose another output")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name the file to write")
    place_of(target)  # refuses devices before anything is computed
    try:
        # times stay numbers: a calendar that nobody asks for need not be one that xarray knows
        opened = xr.open_dataset(
            source, engine="h5netcdf", decode_times=False, driver_kwds={"locking": False}
        )
    except OSError as error:
        raise OSError(f"{source} cannot be read as NetCDF-4: {error}") from error
    with opened as dataset:
        surrogate = Surrogate.load(options.run, operators=operators_of(options))
        prediction = work(surrogate, dataset)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_netcdf(prediction, target)
    print(f"{options.output}: {', '.join(map(str, prediction.data_vars))} {dict(prediction.sizes)}")
    return prediction
