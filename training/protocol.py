"""The protocol of a training in words, so that nobody compares scores across protocols."""

from __future__ import annotations

from sobolev.datasets.loading.windows import AllToAll, Window


def protocol_of(
    window: Window | None,
    frames: int,
    *,
    gradient_frames: int | None,
    noise: float,
    noise_spectrum: str,
) -> str:
    """Say what is trained and scored.

    Args:
        window: the frames of one application, or all pairs of frames, or None for a map that is not in time.
        frames: the frames that are predicted in training.
        gradient_frames, noise, noise_spectrum: as for ``OperatorModule``.

    >>> protocol_of(Window(2, 1), 1, gradient_frames=None, noise=0.0, noise_spectrum="white")
    'one step: 2 frames in, 1 out, scored on that one frame (teacher forcing)'
    """
    if isinstance(window, AllToAll):
        return "one frame in, one later frame out, the time between them given (all-to-all); scored on that frame"
    if window is None:
        return "one map, no time; scored on the whole output"
    words = f"{window.history} {'frame' if window.history == 1 else 'frames'} in, {frames} out"
    if window.stride > 1:
        words += f", {window.stride} stored frames apart"
    if window.horizon < frames:
        reach = "all" if gradient_frames is None else gradient_frames
        number = frames // window.horizon
        words = f"unrolled: {words}, in {number} applications, gradients through {reach}; scored over all {frames}"
    elif frames > 1:
        words = f"one application: {words}; scored over all {frames}"
    else:
        words = f"one step: {words}, scored on that one frame (teacher forcing)"
    kind = "pink noise" if noise_spectrum == "pink" else "noise"
    return f"{words}; {kind} {noise:g} on the given frames in training" if noise else words
