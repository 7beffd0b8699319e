"""One surrogate for a range of viscosities beside surrogates of one viscosity each, after equal time of training.

    sobolev generate burgers-nu data/burgers-nu --resolution 128 \\
        --samples train=4000 --samples valid=100 --samples test=200
    for v in 0.02 0.1 0.5; do sobolev generate burgers-nu data/burgers-$v --set viscosity=$v --resolution 128; done
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/parameters.py --minutes 5 --viscosities 0.02 0.1 0.5

All have the same network, optimizer, loss and minutes; those of one viscosity have 1000 training samples, that of the
range 4000. It is modulated by the viscosity (burgers-nu-fno), which is drawn anew for each of its samples, so that it
never saw the ones that it is judged at. Time counts as in training.py, which trains. Judged are the 200 test samples
of each viscosity.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import torch

from sobolev import Surrogate
from sobolev.datasets import open_dataset
from training import PROBLEMS, Result, Timed, built, configured, trained


def surrogate_of(config: str, data: Path, options: argparse.Namespace) -> tuple[Timed, Result]:
    """Train a configuration on a data set for the minutes there are."""
    each = argparse.Namespace(**{**vars(options), "data": data})
    settings = configured(config, each, ["--data.resolution", "128"])
    module = built(settings, None, PROBLEMS["burgers"], None, False)
    return module, trained(data.name, module, settings, each, options.out / data.name)


def error_at(surrogate: Surrogate, viscosity: float, data: Path) -> float:
    """Mean relative L² error over the test samples of one viscosity."""
    test = open_dataset(data, "test").load()
    predicted = surrogate.predict(test.assign(viscosity=viscosity)).velocity
    squares = [(d**2).sum("x") for d in (predicted - test.velocity, test.velocity)]
    return float(((squares[0] / squares[1]) ** 0.5).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5, help="of training, for each")
    parser.add_argument("--viscosities", type=float, nargs="+", default=[0.02, 0.1, 0.5])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/comparison/parameters"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue what is in OUT")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ranged, about = surrogate_of("burgers-nu-fno", options.data / "burgers-nu", options)
    print(
        f"{options.minutes:g} minutes of training each, {torch.get_num_threads()} threads; over the range, "
        f"{about.steps} steps, its own test samples: {about.scores['relative_l2']:.5f}\n"
    )
    print(
        "| viscosity | its own surrogate | that of the range | ratio | steps |\n|---|---|---|---|---|"
    )
    for viscosity in options.viscosities:
        data = options.data / f"burgers-{viscosity:g}"
        own = surrogate_of("burgers-fno", data, options)[1]
        alone, of_range = own.scores["relative_l2"], error_at(ranged.surrogate, viscosity, data)
        ratio = of_range / alone
        print(
            f"| {viscosity:g} | {alone:.5f} | {of_range:.5f} | {ratio:.2f} | {own.steps} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
