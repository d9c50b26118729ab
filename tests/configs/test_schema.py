"""The one schema: YAML 1.2 scalars, dotted overrides, and errors that name the key, the value and the closest names."""

from typing import Literal

import pytest
from pydantic import Field
from tyro.conf import UseAppendAction

from visviva.configs.schema import Recipe, Section, find, load, parse, read_yaml
from visviva.errors import InputError


class Render(Section):
    """Pictures."""

    height: int = Field(64, ge=8)
    """Height [px]."""


class ThrowRecipe(Recipe):
    """Throw things."""

    verb: Literal["throw"] = "throw"
    """The verb."""
    speed: float = 1.0
    """Speed [m/s]."""
    name: str = ""
    """A word."""
    two_words: str = ""
    """Another."""
    balls: list[str] = Field(default_factory=list)
    """Words."""
    also: UseAppendAction[list[str]] = Field(default_factory=list)
    """Words that the parser gathers."""
    render: Render = Render()
    """Pictures."""


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_scalars_mean_what_they_look_like(tmp_path):
    recipe = load(ThrowRecipe, write(tmp_path, "verb: throw\nspeed: 1e-5\nname: on\n"))
    assert recipe.speed == 1e-5
    assert recipe.name == "on"


def test_precedence_is_command_line_over_file_over_default(tmp_path):
    path = write(tmp_path, "verb: throw\nspeed: 2.0\nrender: {height: 32}\n")
    recipe = parse(ThrowRecipe, ["--config", str(path), "--render.height", "48"])
    assert (recipe.speed, recipe.render.height, recipe.name) == (2.0, 48, "")


def test_an_option_that_stands_twice_keeps_all_its_values_or_is_refused():
    said = ["--balls", "a", "b", "--speed", "2", "--balls=c", "--also", "x", "--also", "y"]
    recipe = parse(ThrowRecipe, said)
    assert (recipe.balls, recipe.speed, recipe.also) == (["a", "b", "c"], 2.0, ["x", "y"])
    with pytest.raises(InputError, match=r"--speed stands twice \('1' and more\)"):
        parse(ThrowRecipe, ["--speed", "1", "--name", "x", "--speed", "2"])
    with pytest.raises(InputError, match=r"--render\.height stands twice"):
        parse(ThrowRecipe, ["--render.height", "9", "--render.height=10"])
    with pytest.raises(InputError, match="--two-words stands twice"):
        parse(ThrowRecipe, ["--two-words", "9", "--two_words", "10"])


def test_dotted_changes_from_python(tmp_path):
    assert load(ThrowRecipe, None, **{"render.height": 128}).render.height == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("verb: throw\nsped: 1\n", r"unknown key 'sped'; did you mean 'speed'"),
        ("verb: throw\nrender: {hight: 3}\n", r"unknown key 'render\.hight'; did you mean 'height'"),
        ("verb: throw\nrender: {height: 3}\n", r"render\.height: .*greater than or equal to 8.*'3'"),
        ("verb: throw\nspeed: fast\n", r"speed: .*'fast'"),
        ("verb: catch\n", r"recipe for 'visviva catch', not 'visviva throw'"),
        ("verb: throw\nspeed: 1\nspeed: 2\n", r"'speed' stands twice"),
        ("- a list\n", r"expected a mapping"),
        ("? [a, b]\n: 3\n", r"a list or mapping as a key \(line 1\)"),
        ("verb: [unclosed\n", r"not a valid YAML recipe"),
    ],
)
def test_a_bad_recipe_is_one_clear_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(ThrowRecipe, write(tmp_path, text))


def test_a_recipe_cannot_be_changed_after_it_was_read():
    with pytest.raises(ValueError, match="frozen"):
        ThrowRecipe().speed = 3.0


def test_missing_files_say_where_to_look(tmp_path):
    with pytest.raises(InputError, match="configs list"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="neither a file nor a shipped recipe"):
        find("nothing-of-that-name")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--render.height", "3"], r"^render\.height: Input should be greater than or equal to 8 \(given: '3'\)$"),
        (["--speed", "fast"], r"^--speed: could not convert string to float: 'fast'; --help lists every setting$"),
        (["--speed"], r"^Missing value for argument '--speed'\. Expected 1 values; --help"),
        (["--rendr.height", "9"], r"^visviva throw has no option --rendr\.height; did you mean '--render\.height'\?$"),
        (["--spede=9"], r"has no option --spede; did you mean '--speed'"),
        (["--xyzzy", "9"], r"has no option --xyzzy; --help lists every setting$"),
        (["loose"], r"^visviva throw does not know what to do with 'loose'"),
        (["--verb", "catch"], r"^--verb 'catch': allowed: throw"),
    ],
)
def test_a_bad_command_line_is_one_sentence(argv, message, capsys):
    with pytest.raises(InputError, match=message) as caught:
        parse(ThrowRecipe, argv, prog="visviva throw")
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_help_is_still_there(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(ThrowRecipe, ["--help"], prog="visviva throw")
    assert not stop.value.code
    assert "--render.height" in capsys.readouterr().out


def test_config_without_a_value():
    with pytest.raises(InputError, match="--config needs"):
        parse(ThrowRecipe, ["--config"])
