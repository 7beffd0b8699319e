"""``sobolev new``: a recipe or an operator to begin with, and its test."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

from sobolev.commands.options import Commands, add

_NEW = """\
Write NAME.py with a small working example, to be changed into your own, and test_NAME.py with what is true of it. A
recipe is an equation with its random inputs, an operator a network between fields. Neither needs a change of sobolev.

examples:
  sobolev new recipe heat             heat.py with HeatRecipe, test_heat.py
  sobolev new operator my_net         my_net.py with MyNet, test_my_net.py
"""
_NEXT = {
    "recipe": """\
  sobolev recipes {name}.py:{kind}
  sobolev generate {name}.py:{kind} data/{name} --resolution 64 \\
      --samples train=100 --samples valid=20 --samples test=20
  sobolev verify data/{name} --redraw 2 --recipes {name}.py:{kind}""",
    "operator": """\
  sobolev train --operators {name}.py:{kind} --model.operator {kind} --model.operator.init_args.in_channels 1 \\
      --model.operator.init_args.out_channels 1 --data.path DATA --trainer.max_epochs 20 --run runs/{name}
  sobolev evaluate runs/{name} --data DATA --operators {name}.py:{kind}""",
}


def declare(commands: Commands) -> None:
    sub = add(commands, "new", run, "write a recipe or an operator to begin with", _NEW)
    sub.add_argument("what", choices=sorted(_NEXT), help="what to begin")
    sub.add_argument("name", help="name of the file, in lower case: letters, digits and _")


def run(options: argparse.Namespace) -> int:
    name = options.name
    kind = class_for(name, options.what)
    source = Path(f"{name}.py")
    test = Path(f"test_{name}.py")
    for file in (source, test):
        if file.exists():
            raise FileExistsError(f"{file} is there already; give another name, or move it away")
    if importlib.util.find_spec(name) is not None:
        raise ValueError(f"Python has a module called {name} already; give another name")
    words = {"name": name, "kind": kind, "title": name.replace("_", " ").capitalize()}
    for file, template in ((source, options.what), (test, f"test_{options.what}")):
        text = resources.files("sobolev.commands") / "templates" / f"{template}.py.txt"
        file.write_text(Template(text.read_text("utf-8")).substitute(words), "utf-8")
    print(f"{source} has {kind}, and {test} what is true of it. Next:")
    print(f"  python -m pytest {test}")
    print(_NEXT[options.what].format(**words))
    return 0


def class_for(name: str, what: str) -> str:
    """Return the name of the class in the file of a name.

    >>> class_for("heat", "recipe"), class_for("my_net", "operator")
    ('HeatRecipe', 'MyNet')

    Raises:
        ValueError: for what is no name of a file and a module.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} names no file to import from; give a word in lower case, letters, digits and _ between them, "
            "such as my_net"
        )
    words = [word.capitalize() for word in name.split("_")]
    if what == "recipe" and words[-1] != "Recipe":
        words.append("Recipe")
    return "".join(words)
