"""The evaluation as one HTML file that opens from disk, in any browser, without a request."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from matplotlib.figure import Figure

from sobolev.datasets.recipes.presets import words_for
from sobolev.evaluation import figures as plots
from sobolev.evaluation.record import Evaluation
from sobolev.training.zeros import in_words

_SHOWN = {
    "errors": "Errors",
    "fields": "Fields",
    "scales": "Scales and integrals",
    "training": "Training",
    "certificates": "Certificates",
    "rollouts": "Rollouts",
    "costs": "Break-even",
    "again": "How to reproduce",
}


def render(evaluation: Evaluation, found: Mapping[str, Any], pictures: Mapping[str, Figure]) -> str:
    """Return the report of an evaluation. ``found`` is the content of ``evaluation.json``, ``pictures``
    are its ``figures``.

    Whatever comes from files (names, paths, provenance) is escaped, and the page forbids itself scripts
    and requests by its Content-Security-Policy.
    """
    names = [v.name for v in evaluation.surrogate.quantities]
    maps = ("film-",) if evaluation.manifest.grid.ndim == 1 else ("film-", "fields-")
    present = {
        "training": "training" in pictures,
        "rollouts": evaluation.rollouts is not None,
        "certificates": evaluation.certificates is not None,
    }
    return _template().render(
        e=evaluation,
        f=found,
        figures={
            name: _data_uri(figure, "png" if name.startswith(maps) else "svg")
            for name, figure in pictures.items()
        },
        sections={key: title for key, title in _SHOWN.items() if present.get(key, True)},
        commands=_commands(evaluation),
        quantities=[None, *names] if len(names) > 1 else [None],
        solver_timed=any(s.solver_seconds_per_field is not None for s in evaluation.scores),
        unit="field" if evaluation.rollouts is None else "rollout",
        times=_few_times(found["rollouts"]) if found["rollouts"] else [],
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "sig": _significant,
        "samples": in_words,
        "duration": _duration,
        "pretty": lambda value: json.dumps(value, indent=1, ensure_ascii=False),
    }
    file = resources.files("sobolev.evaluation") / "templates" / "report.html"
    return environment.from_string(file.read_text(encoding="utf-8"))


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Return every picture that applies, by name."""
    comparisons = evaluation.comparisons
    surrogate = evaluation.surrogate
    found = {
        "histogram": plots.error_histogram(comparisons),
        "spectra": plots.spectra(comparisons),
        "binned": plots.binned_errors(comparisons),
    }
    for sizes in sorted({min(comparisons), max(comparisons)}):
        name = comparisons[sizes].label.replace(" × ", "x")
        found[f"fields-{name}"] = plots.fields(comparisons[sizes], surrogate)
    if len(comparisons) > 1:
        errors = [s.solver_relative_l2 or 0.0 for s in evaluation.scores]
        solver = dict(zip(comparisons, errors, strict=True))
        trained = tuple(evaluation.trained_on or ())
        found["resolutions"] = plots.error_over_resolution(comparisons, solver, trained)
    first = next(iter(comparisons.values()))
    for place, parameter in enumerate(surrogate.meaning.parameters):
        found[f"parameter-{parameter.name}"] = plots.error_over_parameter(first, place)
    if list(evaluation.run.glob("metrics*.csv")):
        found["training"] = plots.training_curve(evaluation.run)
    if (rollouts := evaluation.rollouts) is not None:
        found["time"] = plots.error_over_time(rollouts)
        found["drift"] = plots.drift(rollouts)
        if bool(rollouts.finite.any()):
            found["last"] = plots.last_spectra(rollouts)
        for i, quantity in enumerate(surrogate.quantities):
            found[f"film-{quantity.name}"] = plots.filmstrip(rollouts, i)
    if (bounded := evaluation.certificates) is not None:
        found["bounds"] = plots.bounds(bounded)
        found["effectivity"] = plots.effectivities(bounded)
    if (paid := evaluation.break_even) is not None:
        found["work"] = plots.work_and_precision(paid)
        found["cost"] = plots.total_cost(paid)
    return found


def _data_uri(figure: Figure, kind: str) -> str:
    written = io.BytesIO()
    if kind == "svg":
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    else:
        figure.savefig(written, format="png", dpi=85)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64,{base64.b64encode(written.getvalue()).decode()}"


def _commands(evaluation: Evaluation) -> list[str]:
    """Return the commands that make the data, the run and this report again."""
    manifest = evaluation.manifest
    commands = []
    if recipe := words_for(manifest.recipe):
        words = ["sobolev", "generate", *recipe, str(evaluation.data)]
        for split, count in manifest.requested.items():
            words += ["--samples", f"{split}={count}"]
        words += ["--resolution", str(manifest.resolution), "--seed", str(manifest.seed)]
        commands.append(shlex.join([*words, "--dtype", manifest.dtype]))
    if evaluation.config is not None:
        config = str(evaluation.run / "config.yaml")
        another = f"{evaluation.run}-again"
        commands.append(shlex.join(["sobolev", "train", "--config", config, "--run", another]))
    return [*commands, evaluation.command]


def _few_times(rollouts: Mapping[str, Any]) -> list[int]:
    """Return the frames to put into a table: the first, the last, and some between."""
    last = len(rollouts["times"]) - 1
    return sorted({round(i * last / 7) for i in range(8)})


def _significant(value: float | None, digits: int = 3) -> str:
    """Return a number to so many significant digits, and "not finite" for None."""
    return "not finite" if value is None else f"{value:#.{digits}g}".removesuffix(".")


def _duration(seconds: float | None) -> str:
    """Return seconds in the unit that reads best."""
    if seconds is None:
        return "not recorded"
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * (1.5 if size > 1 else 1):
            return f"{_significant(seconds / size)} {unit}"
    return f"{_significant(seconds / 1e-6)} µs"
