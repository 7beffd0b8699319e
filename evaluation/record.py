"""The record of an evaluation, as data."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.certificates import Certificate, Effectivity
from sobolev.datasets.generating.generation import versions_of_data
from sobolev.datasets.store.manifest import Manifest
from sobolev.evaluation.break_even import BreakEven
from sobolev.evaluation.comparison import TIMED_SOLVES, WINDOWS, Comparison, Score
from sobolev.evaluation.measures import MEASURES
from sobolev.evaluation.rollouts import Rollouts
from sobolev.grids.norms import known
from sobolev.grids.restriction import resolution_of
from sobolev.surrogates import Surrogate

SCHEMA = 1
"""The version of ``evaluation.json``."""


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about a surrogate."""

    surrogate: Surrogate
    run: Path
    data: Path
    split: str
    manifest: Manifest
    command: str
    scores: list[Score]
    comparisons: dict[tuple[int, ...], Comparison]
    """The comparisons by nodes per axis."""
    rollouts: Rollouts | None
    break_even: BreakEven | None
    no_break_even: str
    """The reason why there is no break-even."""
    certificates: Effectivity | None
    certificate: Certificate | None
    no_certificates: str

    @property
    def trained_on(self) -> list[int] | None:
        """Nodes per axis in training."""
        return self.surrogate.provenance.data.resolution

    @property
    def trained_recipe(self) -> str:
        """The class of the recipe of the training data."""
        recipe = self.surrogate.provenance.data.recipe
        return "not recorded" if recipe is None else str(recipe.get("class"))

    @property
    def seen(self) -> bool:
        """True if the fields tested on were trained on, or chose the best weights."""
        drawn = self.surrogate.provenance.data
        same = (drawn.recipe, drawn.seed) == (self.manifest.recipe, self.manifest.seed)
        return same and self.split in ("train", "valid")

    @property
    def config(self) -> str | None:
        """The ``config.yaml`` of the run."""
        file = self.run / "config.yaml"
        return file.read_text() if file.is_file() else None

    @property
    def parameters(self) -> int:
        """The number of weights that were trained; complex ones would count twice, but there are none."""
        return sum(p.numel() for p in self.surrogate.operator.parameters())

    @property
    def protocol(self) -> str:
        """The task that was trained and scored, in words."""
        return self.surrogate.provenance.protocol or "not recorded"

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``: plain, and every float finite or null."""
        manifest = self.manifest
        plain = {
            "schema": SCHEMA,
            "command": self.command,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            "machine": machine(),
            "run": {
                "path": str(self.run),
                "operator": self.surrogate.operator.description,
                "parameters": self.parameters,
                "protocol": self.protocol,
                "symmetries": list(self.surrogate.symmetries),
                "conserved": self.surrogate.conserved,
                "provenance": self.surrogate.provenance.to_json(),
            },
            "data": {
                "path": str(self.data), "split": self.split, "title": manifest.title, "equation": manifest.equation,
                "recipe": manifest.recipe, "preset": manifest.preset, "seed": manifest.seed, "dtype": manifest.dtype,
                "resolution": manifest.resolution, "samples": manifest.requested, "sha256": manifest.digest,
            },
            "measures": {
                key: {"title": m.title, "definition": m.definition} for key, m in MEASURES.items()
            },
            "limits": {"windows": WINDOWS, "timed_solves": TIMED_SOLVES},
            "scores": [asdict(score) for score in self.scores],
            "metrics": [_metrics(c) for c in self.comparisons.values()],
            "certificates": self._certified(),
            "no_certificates": self.no_certificates,
            "rollouts": None if self.rollouts is None else self.rollouts.summary(),
            "break_even": None if self.break_even is None else _costs(self.break_even),
            "no_break_even": self.no_break_even,
        }  # fmt: skip
        return finite(plain)

    def _certified(self) -> dict[str, Any] | None:
        if self.certificates is None or self.certificate is None:
            return None
        return _of_certificates(self.certificates, self.certificate)


def finite(value: Any) -> Any:
    """Return JSON-able data with every float that is not finite replaced by None, as strict JSON wants it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def versions() -> dict[str, str]:
    """Return the versions of the packages that the figures depend on."""
    return {
        **versions_of_data(),
        **{name: version(name) for name in ("lightning", "torchmetrics", "xarray")},
    }


def machine() -> dict[str, str | int]:
    """Return the machine that the times were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
    }


def _processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _metrics(comparison: Comparison) -> dict[str, Any]:
    """Return all measures at one resolution, summed up over the samples."""
    k, bins, square = comparison.spectral_error()
    return {
        "resolution": resolution_of(comparison.grid),
        "nodes": list(comparison.grid.shape),
        "samples": len(comparison.targets),
        "errors": [
            {"quantity": name, "metric": key, **_summed_up(values)}
            for name, measures in comparison.measured().items()
            for key, values in measures.items()
        ],
        "binned_square_error": {
            "wavenumber": k.tolist(), "shells": bins.tolist(), "sum": float(bins.sum()), "mean_square_error": square,
        },
        "integrals": comparison.integrals(),
    }  # fmt: skip


def _summed_up(values: Float[Tensor, " sample"]) -> dict[str, float]:
    """Return mean, median and 90th percentile over the samples that have a value; one that is infinite
    makes them so."""
    values = known(values)
    if not len(values):
        return dict.fromkeys(("mean", "median", "p90"), math.nan)
    middle, high = (float(values.quantile(q)) for q in (0.5, 0.9))
    return {"mean": float(values.mean()), "median": middle, "p90": high}


def _of_certificates(found: Effectivity, certificate: Certificate) -> dict[str, Any]:
    """Return the numbers of the certificates."""
    ratio = found.ratio
    p10, middle, p90 = (float(ratio.quantile(q)) for q in (0.1, 0.5, 0.9))
    return {
        "samples": len(ratio),
        "norm": found.norm,
        "reference": certificate.reference,
        "guaranteed": found.guaranteed,
        "coverage": certificate.attributes.get("coverage"),
        "calibration_samples": certificate.attributes.get("calibration_samples"),
        "holds": int((found.bound >= found.error).sum()),
        "effectivity": {"median": middle, "p10": p10, "p90": p90, "largest": float(ratio.max())},
        "mean_bound": float(found.bound.mean()),
        "mean_error": float(found.error.mean()),
        "bound": found.bound.tolist(),
        "error": found.error.tolist(),
    }


def _costs(paid: BreakEven) -> dict[str, Any]:
    return {**asdict(paid), "fields": paid.fields, "verdict": paid.verdict}
