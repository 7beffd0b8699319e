"""Shapes are part of the signature: whoever takes or returns a tensor says its axes."""

from __future__ import annotations

import ast

import jaxtyping
import pytest
from support.imports import modules

ROOMS = (
    "grids", "solvers", "operators", "datasets", "surrogates", "training", "certification", "evaluation", "commands",
)  # fmt: skip
KINDS = {name for name in dir(jaxtyping) if isinstance(getattr(jaxtyping, name), type)}


def signatures(room: str) -> dict[str, list[ast.expr]]:
    """The annotations of every function in a room that mentions a tensor in its signature."""
    found = {}
    for module, files in modules().items():
        if module.split(".")[1:2] != [room]:
            continue
        for node in (n for f in files for n in ast.walk(ast.parse(f.read_text()))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                hints = [h for h in annotations(node) if list(tensors(h, shaped=True))]
                if hints:
                    found[f"{module}:{node.lineno} {node.name}"] = hints
    return found


def annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    given = function.args
    parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    hints = [parameter.annotation for parameter in parameters if parameter is not None]
    return [hint for hint in (*hints, function.returns) if hint is not None]


def tensors(hint: ast.AST, *, shaped: bool) -> list[ast.AST]:
    """Where ``Tensor`` stands in an annotation; those with a shape count only if ``shaped``."""
    if isinstance(hint, ast.Name) and hint.id == "Tensor":
        return [hint]
    if isinstance(hint, ast.Subscript) and ast.unparse(hint.value).split(".")[-1] in KINDS:
        return [hint] if shaped and tensors(hint.slice, shaped=True) else []
    return [t for child in ast.iter_child_nodes(hint) for t in tensors(child, shaped=shaped)]


@pytest.mark.parametrize("room", ROOMS)
def test_functions_say_the_shapes_of_their_tensors(room):
    hints = signatures(room)
    silent = [name for name, own in hints.items() if any(tensors(h, shaped=False) for h in own)]
    assert hints
    assert not silent
