"""A profile of the time that a run takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from sobolev.datasets.store.whole_files import replacing
from sobolev.training.callbacks.progress import duration


class Profile(Callback):
    """Measure the time of the phases of all steps, and of the operators of a few.

    A text file with both is written anew after every epoch. Devices are waited for between phases, so
    that each phase gets its own time, which makes a run a little slower.
    """

    RECORDED = range(5, 10)
    """The steps whose operators are recorded; by then caches are warm."""
    _DATA = "loading and moving data"
    _FORWARD = "forward and loss"
    _BACKWARD = "backward"
    _OPTIMISER = "optimiser"
    STEP = (_DATA, _FORWARD, _BACKWARD, _OPTIMISER)
    """The phases of a step, in their order."""
    _VALIDATION = "validation"
    _REST = "checkpoints, logs, pictures"
    _FIRST = "first step (caches, compiling)"
    _RECORDING = "recording operators"

    def __init__(self, file: Path) -> None:
        self.file = file
        self.steps = 0
        self.timed = 0
        self.seconds: dict[str, float] = {}
        self.recorder: torch.profiler.profile | None = None
        self.operators: list[tuple[str, int, float]] = []

    def on_fit_start(self, *_: Any) -> None:
        self.mark = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self._lap(self._REST)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, *_: Any
    ) -> None:
        self._lap(self._DATA)
        self.batch = len(batch[0])
        self.device = pl_module.device
        if self.steps == self.RECORDED.start:
            self.recorder = torch.profiler.profile()
            self.recorder.start()
            self._lap(self._RECORDING)

    def on_before_backward(self, *_: Any) -> None:
        self._lap(self._FORWARD)

    def on_after_backward(self, *_: Any) -> None:
        self._lap(self._BACKWARD)

    def on_train_batch_end(self, *_: Any) -> None:
        self._lap(self._OPTIMISER)
        self.timed += self.steps > 0 and self.recorder is None
        self.steps += 1
        if self.steps == self.RECORDED.stop:
            self._stop_recording()

    def on_validation_start(self, *_: Any) -> None:
        self._lap(self._REST)

    def on_validation_end(self, *_: Any) -> None:
        self._lap(self._VALIDATION)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._lap(self._REST)
        if trainer.is_global_zero:
            with replacing(self.file) as part:
                part.write_text(self.report())

    def on_train_end(self, *_: Any) -> None:
        self._stop_recording()

    def on_exception(self, *_: Any) -> None:
        self._stop_recording()

    def report(self) -> str:
        """Return the two tables."""
        total = sum(self.seconds.values())
        lines = [
            f"{duration(total)} on {self.device}, {self.steps} steps of {self.batch} fields (in each process)",
            "",
            f"{'phase':32}{'seconds':>9}{'share':>8}{'ms/step':>10}",
        ]
        order = (*self.STEP, self._VALIDATION, self._REST, self._FIRST, self._RECORDING)
        for phase in (phase for phase in order if phase in self.seconds):
            seconds = self.seconds[phase]
            each = (
                f"{1e3 * seconds / self.timed:>10.2f}" if phase in self.STEP and self.timed else ""
            )
            lines.append(f"{phase:32}{seconds:9.2f}{seconds / total:8.1%}{each}")
        if self.timed:
            step = sum(self.seconds.get(phase, 0.0) for phase in self.STEP) / self.timed
            lines += ["", f"{self.batch / step:.0f} fields per second (and process) while training"]
        if self.operators:
            whole = sum(seconds for _, _, seconds in self.operators)
            first = self.RECORDED.start + 1
            last = self.RECORDED.stop
            lines += [
                "",
                f"own time of operators in steps {first} to {last}: {1e3 * whole:.1f} ms",
                "",
            ]
            lines.append(f"{'operator':52}{'calls':>7}{'ms':>9}{'share':>8}")
            for name, calls, seconds in self.operators[:15]:
                lines.append(f"{name[:50]:52}{calls:7}{1e3 * seconds:9.2f}{seconds / whole:8.1%}")
        return "\n".join(lines) + "\n"

    def _lap(self, phase: str) -> None:
        """Count the time since the last call to ``phase``."""
        if self.steps and phase in self.STEP and self.recorder is not None:
            phase = self._RECORDING
        elif not self.steps and phase in self.STEP:
            phase = self._FIRST
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.mark
        self.mark = now

    def _stop_recording(self) -> None:
        if self.recorder is None:
            return
        self.recorder.stop()
        where = "self_cpu_time_total" if self.device.type == "cpu" else "self_device_time_total"
        events = self.recorder.key_averages()
        found = [(e.key, e.count, getattr(e, where) / 1e6) for e in events]
        self.operators = sorted((e for e in found if e[2] > 0), key=lambda e: -e[2])
        self.recorder = None
        self._lap(self._RECORDING)
