"""``visviva configs``: list the recipes that ship with the package, copy one to edit, check one's own.

Also finds the recipe class of a verb and the shipped accelerate configurations.
"""

from __future__ import annotations

import ast
import importlib
import shutil
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from visviva.configs.schema import RECIPES, Recipe, find, read_yaml, validate
from visviva.errors import InputError, closest

ACCELERATE = Path(__file__).parent / "accelerate"

USAGE = """\
usage: visviva configs list                  the shipped recipes, one line each
       visviva configs copy NAME [PATH]      copy a shipped recipe here (or to PATH) to edit it
       visviva configs check FILE            check a recipe against its verb without running it"""


def verbs() -> list[str]:
    """Return the names for which both ``visviva/configs/<verb>.py`` and ``visviva/pipelines/<verb>`` stand, sorted."""
    pipelines = Path(__file__).parents[1] / "pipelines"
    run = {p.stem for p in pipelines.iterdir() if p.suffix == ".py" or (p / "__main__.py").is_file()}
    return sorted(run & {p.stem for p in Path(__file__).parent.glob("*.py")} - {"__init__"})


def headline(verb: str) -> str:
    """Return the first line of what ``visviva/configs/<verb>.py`` says of itself, without importing it."""
    docstring = ast.get_docstring(ast.parse((Path(__file__).parent / f"{verb}.py").read_text()))
    return (docstring or verb).splitlines()[0].rstrip(".")


def recipe_class(verb: str) -> type[Recipe]:
    """Return the recipe class of a verb, ``visviva.configs.<verb>.<Verb>Recipe``."""
    if verb not in verbs():
        raise InputError(f"no verb {verb!r}; the verbs with recipes are {', '.join(verbs())}{closest(verb, verbs())}")
    return getattr(importlib.import_module(f"visviva.configs.{verb}"), f"{verb.capitalize()}Recipe")


def command(argv: Sequence[str]) -> str:
    """Run one ``visviva configs`` command line and return what it has to say."""
    match list(argv):
        case ["list"]:
            return listing()
        case ["copy", name]:
            return f"copied to {copy(name)}"
        case ["copy", name, path]:
            return f"copied to {copy(name, path)}"
        case ["check", file]:
            return f"{file}: a valid recipe for 'visviva {check(file).verb}'"
        case [] | ["-h"] | ["--help"]:
            return USAGE
        case [first, *_]:
            hint = closest(first, ["list", "copy", "check"]) or f"; {first} takes other arguments: see 'visviva configs --help'"
            raise InputError(f"'visviva configs {' '.join(argv)}' is not understood{hint}")
    return USAGE


def listing() -> str:
    """Return one line per shipped recipe: its name and its description, whole sentences of its first comment."""
    recipes = sorted(RECIPES.glob("*.yaml"))
    width = max((len(p.stem) for p in recipes), default=0)
    lines = [f"{p.stem:<{width}}  {_description(p)}" for p in recipes]
    return "\n".join([*lines, "", "use one: visviva VERB --config NAME; edit one: visviva configs copy NAME"])


def copy(name: str, path: str | Path | None = None) -> Path:
    """Copy a shipped recipe to ``path`` (a file or a folder; default: this folder); never overwrites."""
    source = find(name)
    target = Path(path) if path is not None else Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise InputError(f"{str(target)!r} is already there and is not overwritten; give another path")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def check(file: str | Path) -> Recipe:
    """Validate a recipe file against the class of the verb it names and return the recipe.

    Beyond the schema: laws, probes and metrics exist, take their options, are anchored; settings do not contradict each other.
    """
    content = read_yaml(find(file))
    if not isinstance(content.get("verb"), str):
        raise InputError(f"{file}: the key 'verb' is missing; a recipe names its verb first, for example 'verb: generate'")
    recipe = validate(recipe_class(content["verb"]), content, str(file))
    try:
        _refuse_what_cannot_run(recipe)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return recipe


def _refuse_what_cannot_run(recipe: Any) -> None:
    """Raise what the verb would raise for these settings before it reads its first file."""
    if recipe.verb == "posttrain":
        recipe.check()
        if recipe.method == "reward_backprop":
            _build(recipe.reward.laws, recipe.reward.probe, recipe.reward.allow_trivial)
        if recipe.validation.every:
            from visviva.eval.newtonbench import FIVE

            _known(recipe.validation.metrics, "validation.metrics", FIVE)
    elif recipe.verb == "generate" and recipe.guidance.scale > 0:
        _build(recipe.guidance.laws, recipe.guidance.probe)
    elif recipe.verb == "calibrate":
        _known(recipe.laws, "laws")


def _build(laws: Any, probe: Any, allow_trivial: bool = False) -> None:
    """Build the verifier, with stand-ins for the networks of the feature probes."""
    from torch.nn import Identity

    from visviva.pipelines.posttrain.verifier import build

    light = probe.model_copy(update={"features": "vae"}) if probe.features.startswith("vjepa2:") else probe
    build(laws, light, Identity(), allow_trivial=allow_trivial)


def _known(names: Sequence[str], where: str, further: Sequence[str] = ()) -> None:
    from visviva.physics.laws import LAWS

    for name in names:
        if name not in (known := [*LAWS, *further]):
            raise InputError(f"{where}: no {name!r}; known: {', '.join(known)}{closest(name, known)}")


def accelerate_config(name: str) -> Path:
    """Return the path of an accelerate configuration: a file, or a shipped one by name."""
    shipped = sorted(p.stem for p in ACCELERATE.glob("*.yaml"))
    if Path(name).is_file():
        return Path(name)
    if name in shipped:
        return ACCELERATE / f"{name}.yaml"
    known = f"({', '.join(shipped) or 'none'}){closest(name, shipped)}"
    raise InputError(f"no accelerate config {name!r}: neither a file nor a shipped one {known}")


def _description(path: Path) -> str:
    """Return the first comment line, with the lines on which its last sentence goes on; an unfinished ``...:`` is left out."""
    below = dropwhile(lambda line: not line.startswith("#"), path.read_text().splitlines())
    comments = [line.lstrip("# ").rstrip() for line in takewhile(lambda line: line.startswith("#"), below)]
    text = comments[0] if comments else ""
    for line in comments[1:]:
        if text.endswith((".", ":")):
            break
        text += f" {line}"
    return f"{text.rpartition('. ')[0]}." if text.endswith(":") and ". " in text else text
