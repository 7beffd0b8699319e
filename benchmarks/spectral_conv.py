"""Where the FFT overtakes the matrix products in the Fourier layer, forward and backward.

.venv/bin/python benchmarks/spectral_conv.py
"""

from __future__ import annotations

import math
import statistics
import time
from unittest import mock

import torch

from sobolev.operators import SpectralConv
from sobolev.operators.layers.fourier import FourierModes

CASES = [((n,), (m,)) for n in (1024, 8192) for m in (16, 64, 128, 256, 512)]
CASES += [((n, n), (m, m)) for n in (64, 256) for m in (8, 16, 24, 32, 64, 96) if 2 * m < n]


def median_time(layer: SpectralConv, v: torch.Tensor, *, fft: bool) -> float:
    times = []
    with mock.patch.object(FourierModes, "_prefers_fft", return_value=fft):
        for _ in range(6):
            start = time.perf_counter()
            layer(v).square().mean().backward()
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def main() -> None:
    print("| grid | modes | matrices, ms | FFT, ms | ratio | 2 Σm / log₂ n | the layer takes |")
    print("|---|---|---|---|---|---|---|")
    for space, modes in CASES:
        layer = SpectralConv(32, 32, modes, boundary=["periodic"] * len(modes))
        v = torch.randn(max(1, 2**16 // math.prod(space)), *space, 32, requires_grad=True)
        matrices, fft = (median_time(layer, v, fft=choice) for choice in (False, True))
        measure = 2 * sum(modes) / math.log2(math.prod(space))
        taken = "FFT" if layer._prefers_fft(space) else "matrices"
        print(
            f"| {'×'.join(map(str, space))} | {modes[0]} | {matrices:.1f} | {fft:.1f} | {fft / matrices:.2f} "
            f"| {measure:.1f} | {taken} |",
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
