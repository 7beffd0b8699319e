"""The configurations that come with the package, one per problem and operator."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sobolev.grids.checks import did_you_mean

CONFIGS = Path(str(resources.files("sobolev.training"))) / "configs"


def config_names() -> list[str]:
    """Return the names that ``--config`` understands besides paths."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def configuration(name: str) -> Path:
    """Return the file of a configuration that comes with the package.

    Raises:
        FileNotFoundError: for another name, with the nearest one.
    """
    names = config_names()
    if name not in names:
        near = did_you_mean(Path(name).stem, names)
        hint = f"{near} " if near else ""
        raise FileNotFoundError(
            f"there is no file {name!r}, and no configuration of that name; {hint}sobolev comes with {', '.join(names)}"
        )
    return CONFIGS / f"{name}.yaml"
