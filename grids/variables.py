"""Names of fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A named physical field.

    >>> Variable("height", "height above ground", "m").attributes
    {'long_name': 'height above ground', 'units': 'm'}
    """

    name: str
    long_name: str
    units: str

    @property
    def attributes(self) -> dict[str, str]:
        """The CF attributes of an array of its values."""
        return {"long_name": self.long_name, "units": self.units}
