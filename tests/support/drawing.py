"""Pictures of one pixel: most tests make pictures on their way, and few look at them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.tensorboard import SummaryWriter


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Compose figures as ever, but for the ones of trainings, and save a pixel in their place."""
    from sobolev.commands import lightning_cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save_a_pixel)
        patch.setattr(SummaryWriter, "add_figure", lambda self, tag, figure, *_, **__: None)
        patch.setattr(lightning_cli, "draw_predictions", lambda *_: Figure())
        yield


def _save_a_pixel(figure: Figure, target: str | Path | io.BytesIO, **options: Any) -> None:
    if options.get("format") == "svg":
        target.write(b"<svg></svg>")
    else:
        Image.new("RGB", (1, 1)).save(target, options.get("format", "png"))
