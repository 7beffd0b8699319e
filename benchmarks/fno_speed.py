"""Training step of our FNO beside neuralop's at equal modes and width, interleaved in one run.

    .venv/bin/pip install --no-deps neuraloperator==2.0.0 tensorly tensorly-torch opt-einsum
    .venv/bin/python benchmarks/fno_speed.py

Both are the paper's network: 1×1 lifting, four blocks of spectral convolution and linear skip,
GELU, projection through 2 × width channels. neuralop's defaults beyond that (channel MLPs in the
blocks, two-layer lifting, grid embedding) are switched off, which makes it faster than it is by
default.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch

from sobolev.operators import FNO

CASES = [  # batch, space, modes per sign, width
    (16, (64, 64), (12, 12), 32),
    (20, (85, 85), (12, 12), 32),
    (8, (128, 128), (12, 12), 64),
    (2, (256, 256), (12, 12), 32),
    (20, (1024,), (16,), 64),
    (4, (32, 32, 32), (8, 8, 8), 20),
]


def neuralop_fno(modes: tuple[int, ...], width: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO as Theirs
    return Theirs(
        n_modes=tuple(2 * m for m in modes), in_channels=1, out_channels=1, hidden_channels=width, n_layers=4,
        lifting_channel_ratio=0, projection_channel_ratio=2, positional_embedding=None, use_channel_mlp=False,
    )  # fmt: skip


def stepper(model: torch.nn.Module, u: torch.Tensor):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        model(u).square().mean().backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="compile ours")
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {options.repeats} interleaved steps"
    )
    print("| batch × grid, width | ours, ms | neuralop, ms | ratio |")
    print("|---|---|---|---|")
    ratios = []
    for batch, space, modes, width in CASES:
        u = torch.randn(batch, 1, *space)
        ours = FNO(1, 1, modes=modes, width=width)
        steps = (
            stepper(torch.compile(ours) if options.compile else ours, u),
            stepper(neuralop_fno(modes, width), u),
        )
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(options.repeats + 2):
            for step, kept in zip(steps, times, strict=True):
                seconds = step()
                if repeat >= 2:
                    kept.append(1e3 * seconds)
        a, b = map(statistics.median, times)
        ratios.append(b / a)
        print(
            f"| {batch} × {'×'.join(map(str, space))}, {width} | {a:.0f} | {b:.0f} | {b / a:.2f} |",
            flush=True,
        )
    print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
