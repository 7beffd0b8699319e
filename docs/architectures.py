"""Draws the operators' architectures for docs/operators.md.

.venv/bin/python docs/architectures.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parent / "operators"
FIELD, LEARNED, FIXED = "#e8eef7", "#f7d9b5", "#dff0dc"  # fields, trained maps, fixed transforms
WIDTH, GAP, HEIGHT = 1.5, 0.55, 0.62


@dataclass(frozen=True)
class Row:
    """A chain of boxes, and by-passes over it: (from, to, label) by position in the chain.

    A box is a text; a leading ``*`` marks a trained map, a leading ``~`` a fixed transform.
    """

    title: str
    boxes: tuple[str, ...]
    bypasses: tuple[tuple[int, int, str], ...] = ()


ARCHITECTURES = {
    "fno": (
        Row("FNO", ("a(x)", "*lift", "*Fourier layer\n× depth", "*project", "u(x)")),
        Row(
            "Fourier layer",
            ("v", "~truncated\nDFT", "*$R_k$ per mode", "~inverse\nDFT", "+", "GELU"),
            ((0, 4, "1×1 convolution W v + b"),),
        ),
    ),
    "sfno": (
        Row("SFNO", ("a(θ, φ)", "*encode", "*block\n× depth", "*decode", "u(θ, φ)")),
        Row(
            "block",
            ("v", "~harmonic\nanalysis", "*$K_l$ per degree", "~synthesis", "*MLP", "+"),
            ((0, 5, "residual (resampled where the grids differ)"),),
        ),
    ),
    "gfno": (
        Row("G-FNO", ("a(x)", "*lift to\nthe group", "*group layer\n× depth", "*invariant\nprojection", "u(x)")),
        Row(
            "group layer",
            ("v(x, g)", "~truncated\nDFT", "*turned copies\nof one $ψ_k$", "~inverse\nDFT", "*group MLP", "+", "GELU"),
            ((0, 5, "1×1 group convolution"),),
        ),
    ),
    "mgno": (
        Row("MgNO", ("a(x)", "*V-cycle layer\n× depth", "*1×1", "u(x)")),
        Row(
            "V-cycle layer",
            ("v", "*smooth", "*restrict", "*… coarsest …", "*prolong, +", "+", "GELU"),
            ((1, 4, "each level"), (0, 5, "1×1 convolution B v + b")),
        ),
    ),
    "specboost": (
        Row(
            "SpecBoost",
            ("a(x)", "*stage 1\nlow modes", "*stage 2\nmore modes", "*stage 3\nmore still", "Σ $s_k$ · stage", "u(x)"),
            ((0, 4, "every stage reads a(x); the k-th was trained on what the earlier ones left"),),
        ),
    ),
    "stfno": (
        Row(
            "ST-FNO",
            ("a(x, t ≤ 0)", "*lift", "*space–time\nlayer × depth", "*reduce", "*output Q", "+", "u(x, t > 0)"),
            ((0, 5, "last input frame"),),
        ),
        Row(
            "output Q",
            ("r(x, τ)", "~zeros before,\nDFT in x and τ", "*$R_k$ r̂ + b̂", "~inverse DFT\nat any times"),
        ),
    ),
}  # fmt: skip


def drawn(axes: Axes, row: Row) -> None:
    """One chain with its by-passes."""
    axes.set_axis_off()
    axes.set_title(row.title, loc="left", fontsize=10, fontweight="bold")
    step = WIDTH + GAP
    for i, text in enumerate(row.boxes):
        colour = {"*": LEARNED, "~": FIXED}.get(text[0], FIELD)
        box = FancyBboxPatch(
            (i * step, 0), WIDTH, HEIGHT, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="#555555"
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(
            i * step + WIDTH / 2,
            HEIGHT / 2,
            text.lstrip("*~"),
            ha="center",
            va="center",
            fontsize=8.5,
        )
        if i:
            axes.add_patch(
                _arrow((i * step - GAP + 0.04, HEIGHT / 2), (i * step - 0.04, HEIGHT / 2))
            )
    for level, (start, end, label) in enumerate(row.bypasses):
        x0, x1 = start * step + WIDTH / 2, end * step + WIDTH / 2
        top = HEIGHT + 0.32 + 0.34 * level
        axes.plot([x0, x0, x1], [HEIGHT + 0.03, top, top], color="#555555", lw=1)
        axes.add_patch(_arrow((x1, top), (x1, HEIGHT + 0.04)))
        axes.text((x0 + x1) / 2, top + 0.03, label, ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.1, 7 * step)
    axes.set_ylim(-0.1, HEIGHT + 0.25 + 0.4 * len(row.bypasses))
    axes.set_aspect("equal")


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=9, color="#555555", lw=1, shrinkA=0, shrinkB=0
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "sobolev"  # the same file every time
    for name, rows in ARCHITECTURES.items():
        heights = [0.95 + 0.4 * len(row.bypasses) for row in rows]
        figure, panels = plt.subplots(
            len(rows), 1, figsize=(9.5, 0.3 + sum(heights)), squeeze=False, height_ratios=heights
        )
        for axes, row in zip(panels[:, 0], rows, strict=True):
            drawn(axes, row)
        figure.tight_layout()
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
