"""Figures show what their titles say: which output, which slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sobolev import Grid, Surrogate
from sobolev.evaluation import figure_look
from sobolev.evaluation import figures as plots
from sobolev.evaluation.comparison import Comparison
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

pytestmark = pytest.mark.draws


def drawn(grid: Grid, outputs: int):
    """The figure of two samples whose target k is k everywhere but for its first-axis index."""
    operator = FNO(1, outputs, modes=[2] * grid.ndim, width=2, depth=1)
    variables = [Variable(f"u{k}", f"output {k}", "m") for k in range(outputs)]
    scales = {v.name: (0.0, 1.0) for v in variables} | {"f": (0.0, 1.0)}
    force = Variable("f", "force", "N")
    surrogate = Surrogate(operator, grid, [force], variables, scales)
    target = torch.arange(float(outputs)).reshape(1, -1, *[1] * grid.ndim)
    index = torch.arange(float(grid.shape[0])).reshape(-1, *[1] * (grid.ndim - 1))
    target = (10 * target + index).expand(2, -1, *grid.shape)
    inputs = torch.randn(2, 1, *grid.shape)
    return plots.fields(Comparison(grid, inputs, target, target + 1, surrogate), surrogate)


def test_a_volume_is_cut_in_its_middle():
    figure = drawn(Grid.periodic(6, 5, 4), 1)
    assert figure.get_suptitle() == "output 0 at 6 × 5 × 4 nodes, cut at z = 0.5"
    (truth,) = (a for a in figure.axes[:4] if a.get_title() == "solver")
    image = np.asarray(truth.images[0].get_array())
    assert image.shape == (6, 5)  # periodic axes are closed
    assert (image == 3).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (7, [0, 3, 6])]
)
@pytest.mark.parametrize("sizes", [(8,), (6, 5)], ids=["lines", "maps"])
def test_every_output_has_a_named_row_or_three_of_them(outputs, shown, sizes):
    figure = drawn(Grid.periodic(*sizes), outputs)
    titles = [a.get_title() for a in figure.axes]
    truths = [t for t in titles if t.startswith("output") or t == "solver"]
    if outputs == 1 and len(sizes) == 2:
        assert truths == ["solver"] * 2
        return
    assert [int(t.split()[1]) for t in truths] == shown * 2  # the median sample's and the worst's
    if outputs > 1:
        assert f"{len(shown)} of {outputs} outputs" in figure.get_suptitle()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_single_epoch_or_frame_is_a_point_that_is_seen(epochs, tmp_path):
    """Looked for as a dark pixel inside the axes: a line from one point to nowhere leaves none."""
    rows = [f"{epoch},{0.1 / (epoch + 1)},{0.2 / (epoch + 1)}" for epoch in range(epochs)]
    lines = ["epoch,train/loss,valid/relative_l2", *rows]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    over_epochs = plots.training_curve(tmp_path)
    figure, axes = figure_look.plot()
    axes.plot(range(epochs), [1.0] * epochs, color="black")
    for drawn_figure in (over_epochs, figure_look.tidied(figure)):
        (panel,) = drawn_figure.axes
        if panel.get_legend():
            panel.get_legend().remove()
        panel.grid(False)
        FigureCanvasAgg(drawn_figure).draw()
        pixels = np.asarray(drawn_figure.canvas.buffer_rgba())[..., :3]
        box = panel.get_window_extent()
        height = pixels.shape[0]
        inside = pixels[
            height - int(box.y1) + 12 : height - int(box.y0) - 12,
            int(box.x0) + 12 : int(box.x1) - 12,
        ]
        assert (inside.min(axis=-1) < 128).any()
