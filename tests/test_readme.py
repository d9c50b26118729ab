"""What the README shows works as written: its commands parse, its imports exist, its law runs."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from visviva.cli import LAUNCHED, _take_launch
from visviva.configs.schema import parse
from visviva.configs.shipped import recipe_class, verbs

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(language):
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(code, id=f"{page.name}-{number}"))
    return found


def commands():
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    return [line for line in lines if line.startswith("visviva ") and not line.startswith("visviva configs")]


@pytest.mark.parametrize("line", commands())
def test_every_command_line_is_understood(line, monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    verb, *argv = shlex.split(line.split("#")[0])[1:]
    assert verb in verbs()
    if verb in LAUNCHED:
        _take_launch(argv)
    if "mine.yaml" in argv:
        argv[argv.index("mine.yaml")] = "generate-guided"
    assert parse(recipe_class(verb), argv).verb == verb


@pytest.mark.parametrize("code", blocks("python"))
def test_every_import_exists_and_recipes_take_what_is_shown(code):
    tree = ast.parse(code)
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert top
    names: dict = {}
    exec(compile(ast.Module(top, []), "README", "exec"), names)
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.endswith("Recipe") or called == "load":
            assert eval(ast.unparse(node), names).verb in verbs()


def test_the_law_of_ones_own_runs():
    (code,) = [block.values[0] for block in blocks("python") if "class NothingRises" in block.values[0]]
    names: dict = {}
    exec(code, names)
    assert names["verdict"].loss.shape == (2,)


def test_the_links_and_pictures_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
