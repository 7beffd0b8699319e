def print_table(scores: Sequence[Score]) -> None:
    """The scores as a table on the terminal; several quantities have rows of their own."""
    table = rich.table.Table()
    heads = (
        "resolution", "samples", "relative L²", "relative H¹", "ms/field", "solver ms/field", "solver relative L²",
    )  # fmt: skip
    for head in heads:
        table.add_column(head, justify="right")
    for s in scores:
        solver = ["–", "–"]
        if s.solver_seconds_per_field is not None:
            solver = [f"{1e3 * s.solver_seconds_per_field:.2f}", f"{s.solver_relative_l2:.1e}"]
        table.add_row(
            str(s.resolution), str(s.samples), f"{s.relative_l2:.5f}", f"{s.relative_h1:.5f}",
            f"{1e3 * s.seconds_per_field:.2f}", *solver,
        )  # fmt: skip
        for name, error in s.relative_l2_of.items():
            table.add_row(rich.markup.escape(name), "", f"{error:.5f}", *[""] * 4, style="dim")
    rich.console.Console(width=110).print(table)


def _command(
    run: Path,
    data: Path,
    resolutions: Sequence[int],
    split: str,
    out: Path,
    solver_timing: bool,
    trajectories: int,
    symmetrize: bool,
) -> str:
    """The command line that does this again."""
    words = ["sobolev", "evaluate", str(run), "--data", str(data)]
    for resolution in resolutions:
        words += ["--resolution", str(resolution)]
    words += ["--split", split] if split != "test" else []
    words += ["--out", str(out)]
    words += ["--no-solver-timing"] if not solver_timing else []
    words += ["--trajectories", str(trajectories)] if trajectories != TRAJECTORIES else []
    words += ["--symmetrize"] if symmetrize else []
    return shlex.join(words)
