"""The house: no circle among modules, no import up a floor, no neighbour that knows another."""

from __future__ import annotations

from support.imports import circles, graph, modules

FLOORS = (
    {"grids"},
    {"solvers", "operators"},
    {"datasets"},
    {"surrogates"},
    {"training", "certification"},
    {"evaluation"},
    {"sobolev"},
)
"""From the ground up."""


def room(module: str) -> str:
    first, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if any(name in floor for floor in FLOORS) else first


def floor(module: str) -> int:
    (found,) = (i for i, rooms in enumerate(FLOORS) if room(module) in rooms)
    return found


def test_no_module_imports_itself_by_way_of_others():
    assert not circles(graph())


def test_imports_point_downwards_and_rooms_on_one_floor_do_not_know_each_other():
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if room(target) != room(module) and floor(target) >= floor(module)
    ]
    assert not wrong


def test_every_file_of_a_room_is_in_a_package():
    """A folder that ``pyproject.toml`` does not name would be left out of the wheel, and of this test."""
    found = {file for files in modules().values() for file in files}
    homes = {file.parent for file in found}
    tops = {home for home in homes if not any(home != h and home.is_relative_to(h) for h in homes)}
    assert {file for top in tops for file in top.rglob("*.py")} <= found
