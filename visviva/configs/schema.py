"""The one schema of all recipes: frozen typed YAML, unknown keys refused, dotted overrides on the command line.

A verb's recipe is a `Recipe` subclass in ``visviva/configs/<verb>.py`` (pydantic only, no torch: ``--help`` must be
quick). Shipped recipes are ``visviva/configs/recipes/<verb>-*.yaml``; their first key is ``verb``. Order of precedence:
command line over YAML file over field default.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from visviva.errors import InputError, closest

RECIPES = Path(__file__).parent / "recipes"


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors. Field docstrings become ``--help`` and the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Recipe(Section):
    """The settings of one verb. Subclasses set ``verb`` to a ``Literal``."""

    verb: str


R = TypeVar("R", bound=Recipe)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``1e-5`` is a number, ``on``/``off``/``yes``/``no`` are words, duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"a list or mapping as a key (line {key.start_mark.line + 1}); keys are names of settings")
            if key.value in seen:
                raise InputError(f"the key {key.value!r} stands twice (line {key.start_mark.line + 1}); keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_1_2() -> None:
    resolvers = {
        c: [r for r in rs if r[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
        for c, rs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _Loader.yaml_implicit_resolvers = resolvers
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF"))
    number = r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(number), list("-+0123456789."))


_yaml_1_2()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; errors name the file and the line."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no config file {str(path)!r}; 'visviva configs list' shows the shipped ones")
    try:
        content = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 (a SafeLoader subclass)
    except (yaml.YAMLError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: not a valid YAML recipe: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    return content


def find(name: str | Path) -> Path:
    """Return the path of a recipe: an existing file, or a shipped recipe by name (with or without ``.yaml``)."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    if path.name.removesuffix(".yaml") in shipped and path.parent == Path("."):
        return RECIPES / f"{path.name.removesuffix('.yaml')}.yaml"
    raise InputError(
        f"no recipe {str(name)!r}: neither a file nor a shipped recipe ({', '.join(shipped)})"
        + closest(path.name.removesuffix(".yaml"), shipped)
    )


def validate(recipe: type[R], content: dict[str, Any], source: str) -> R:
    """Build the frozen recipe; the error names the dotted key, the value and the closest allowed keys."""
    verb = recipe.model_fields["verb"].default
    if content.get("verb", verb) != verb:
        raise InputError(f"{source}: this is a recipe for 'visviva {content['verb']}', not 'visviva {verb}'")
    try:
        return recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_explain(recipe, e) for e in error.errors())) from None


def _explain(recipe: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key or 'recipe'}: {error['msg']} (given: {str(error.get('input'))[:80]!r})"
    fields = _siblings(recipe, error["loc"][:-1])
    hint = closest(str(error["loc"][-1]), fields) or f"; allowed: {', '.join(fields)}"
    return f"unknown key {key!r}{hint}"


def _siblings(model: Any, loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = getattr(model, "model_fields", {}).get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return sorted(getattr(model, "model_fields", {}))


def load(recipe: type[R], name: str | Path | None = None, **changes: Any) -> R:
    """Return the recipe from a YAML file or shipped name, with changes by dotted key.

    Example::

        recipe = load(SimulateRecipe, "simulate-primitives", **{"render.height": 128})
    """
    content = read_yaml(find(name)) if name is not None else {}
    for key, value in changes.items():
        *groups, last = key.split(".")
        inner = content
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return validate(recipe, content, str(name) if name is not None else "the arguments")


def parse(recipe: type[R], argv: Sequence[str] | None = None, prog: str | None = None) -> R:
    """Parse ``[--config FILE_OR_NAME] [--dotted.key VALUE ...]`` into a recipe; ``--help`` lists every setting."""
    import tyro

    argv = list(sys.argv[1:] if argv is None else argv)
    name = _take_config(argv)
    argv = _gathered(recipe, argv)
    default = load(recipe, name) if name is not None else tyro.MISSING_NONPROP
    epilog = "Start from a recipe with --config FILE_OR_NAME; 'visviva configs list' shows the shipped ones."
    description = f"{recipe.__doc__ or ''}\n\n{epilog}"
    said = io.StringIO()  # tyro draws a box around its errors; what it says becomes a sentence
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                recipe, args=argv, default=default, prog=prog, description=description, return_unknown_args=True
            )
    except ValidationError as error:
        raise InputError(_sentence(recipe, error, argv)) from None
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        found = _validation_error(stop)
        if found is not None:
            raise InputError(_sentence(recipe, found, argv)) from None
        raise InputError(_unboxed(said.getvalue())) from None
    if unknown:
        raise InputError(_unknown(recipe, unknown, prog or "the command"))
    return parsed


def _validation_error(error: BaseException | None) -> ValidationError | None:
    while error is not None and not isinstance(error, ValidationError):
        error = error.__context__
    return error


def _sentence(recipe: type[BaseModel], error: ValidationError, argv: Sequence[str]) -> str:
    """Return pydantic's findings by the options that were given (tyro builds each group alone, so it knows no full keys)."""
    given = [word.split("=")[0].removeprefix("--").replace("-", "_") for word in argv if word.startswith("--")]
    told = []
    for found in error.errors():
        key = ".".join(map(str, found["loc"]))
        full = next((name for name in given if name == key or name.endswith(f".{key}")), None)
        told.append(_explain(recipe, {**found, "loc": tuple(full.split("."))} if full else found))
    return "; ".join(told)


def _unboxed(text: str) -> str:
    """Return what stands in tyro's box, without frame, title and pointer to the help, as one line."""
    lines = [line.strip(" │|╭╮╰╯") for line in text.splitlines()]
    rule = next((k for k, line in enumerate(lines) if k > 1 and re.match(r"[-─]{5}", line)), len(lines))
    said = " ".join(line for line in lines[1:rule] if line and not re.match(r"[-─]{5}", line)).replace(" .", ".")
    said = said.removeprefix("Error parsing ").strip()
    choice = re.search(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*)\)", said)
    if choice is None:
        return f"{said.rstrip('.')}; --help lists every setting"
    allowed = [word.strip(" '") for word in choice[3].split(",") if word.strip()]
    return f"{choice[2]} {choice[1]!r}: allowed: {', '.join(allowed)}{closest(choice[1], allowed)}"


def _unknown(recipe: type[BaseModel], words: Sequence[str], prog: str) -> str:
    word = words[0].split("=")[0]
    if not word.startswith("-"):
        return f"{prog} does not know what to do with {word!r}; quote values that contain spaces, and see --help"
    if word.replace("_", "-") in _options(recipe):  # a mapping, whose names are options of their own
        return f"{prog}: {word} takes one name at a time, as {word}.NAME VALUE; --help lists them, others go into a recipe file"
    near = closest(word.replace("_", "-"), _options(recipe))
    return f"{prog} has no option {word}{near or '; --help lists every setting'}"


def _options(model: type[BaseModel], prefix: str = "--") -> list[str]:
    """Return every dotted option of a recipe class."""
    found = []
    for name, field in model.model_fields.items():
        option = prefix + name.replace("_", "-")
        kind: Any = field.annotation
        found += _options(kind, f"{option}.") if isinstance(kind, type) and issubclass(kind, BaseModel) else [option]
    return found


def _field(model: Any, option: str) -> Any:
    """Return the field that ``--dotted.option`` sets, None where there is none."""
    field = None
    for part in option.removeprefix("--").replace("-", "_").split("."):
        field = getattr(model, "model_fields", {}).get(part)
        model = None if field is None else field.annotation
    return field


def _gathered(recipe: type[BaseModel], argv: Sequence[str]) -> list[str]:
    """Return the words with the values of a list's option that stands twice behind its first; the parser keeps the last alone.

    Raises:
        InputError: an option of one value that stands twice.
    """
    given = [word.split("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    if len(set(given)) == len(given):
        return list(argv)
    groups: dict[str, list[str]] = {}
    for word in argv:
        option, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--":
            groups.setdefault(next(reversed(groups), ""), []).append(word)
            continue
        option = option.replace("_", "-")
        field = _field(recipe, option)
        if field is not None and "UseAppendAction" in str(field.metadata):
            option = f"{option} {len(groups)}"  # the parser itself gathers these
        elif field is not None and option in groups and get_origin(field.annotation) not in (list, dict):
            raise InputError(f"{option} stands twice ({' '.join(groups[option])!r} and more); give it once")
        before = groups.pop(option, [])  # what follows without an option belongs to the last one
        groups[option] = [*before, *([value] if equals else [])]
    return [word for option, values in groups.items() for word in ([option.split(" ")[0]] if option else []) + values]


def _take_config(argv: list[str]) -> str | None:
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise InputError("--config needs a recipe file or the name of a shipped recipe")
            name = argv[i + 1]
            del argv[i : i + 2]
            return name
        if word.startswith("--config="):
            del argv[i]
            return word.removeprefix("--config=")
    return None
