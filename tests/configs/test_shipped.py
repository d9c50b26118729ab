"""``visviva configs list | copy | check`` and the look-up of recipe classes."""

import pytest

from visviva.configs import shipped
from visviva.configs.schema import RECIPES
from visviva.errors import InputError


def test_every_recipe_is_listed_with_its_comment():
    lines = shipped.listing().splitlines()
    for path in RECIPES.glob("*.yaml"):
        assert any(line.startswith(path.stem + " ") for line in lines)


def test_descriptions_are_whole_sentences():
    lines = {line.split()[0]: line for line in shipped.listing().splitlines()[:-2]}
    assert lines["evaluate-recording"].endswith("g with its error budget.")
    assert lines["calibrate-laws"].endswith(" training set, from visviva simulate data/calibration --clips 200 --seed 1001")
    assert not [line for line in lines.values() if line.endswith((":", ",", " from"))]


def test_copy_makes_a_valid_recipe_and_never_overwrites(tmp_path):
    copy = shipped.copy("generate-tiny", tmp_path)
    assert copy == tmp_path / "generate-tiny.yaml"
    assert shipped.check(copy).verb == "generate"
    copy.write_text("mine")
    with pytest.raises(InputError, match="not overwritten"):
        shipped.copy("generate-tiny", tmp_path)
    assert copy.read_text() == "mine"
    assert shipped.copy("generate-tiny.yaml", tmp_path / "new" / "my.yaml").is_file()


def test_check_names_the_key_or_the_missing_verb(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("verb: generate\nbatchsize: 3\n")
    with pytest.raises(InputError, match=r"mine\.yaml: unknown key 'batchsize'; did you mean 'batch_size'"):
        shipped.check(recipe)
    recipe.write_text("seed: 3\n")
    with pytest.raises(InputError, match="the key 'verb' is missing"):
        shipped.check(recipe)
    recipe.write_text("verb: generat\n")
    with pytest.raises(InputError, match="did you mean 'generate'"):
        shipped.check(recipe)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("verb: posttrain\ndata: {path: x}\nreward: {laws: [{name: gravty}]}", "no law 'gravty'"),
        (
            "verb: posttrain\ndata: {path: x}\nreward: {laws: [{name: motion_floor, options: {marginn: 1}}]}",
            "law motion_floor: unknown option 'marginn'",
        ),
        ("verb: posttrain\ndata: {path: x}\nreward: {laws: [{name: constant_acceleration}]}", "add an anchor"),
        ("verb: posttrain\ndata: {path: x}\nreward: {probe: {flow: dsi}}", "no flow probe 'dsi'.*did you mean 'dis'"),
        ("verb: posttrain\ndata: {path: x}\nreward: {grad_steps: 11}", r"reward\.grad_steps is 11"),
        ("verb: posttrain\nmax_steps: 3", "what to train on"),
        ("verb: posttrain\ndata: {path: x}\nvalidation: {metrics: [iuo]}", "validation.metrics: no 'iuo'.*did you mean 'iou'"),
        ("verb: generate\nguidance: {scale: 1, laws: [{name: mass_conservaton}]}", "did you mean 'mass_conservation'"),
        ("verb: calibrate\nlaws: [motion_flor]", "laws: no 'motion_flor'.*did you mean 'motion_floor'"),
    ],
)
def test_check_refuses_what_cannot_run(tmp_path, text, words):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    with pytest.raises(InputError, match=rf"mine\.yaml: .*{words}"):
        shipped.check(recipe)


@pytest.mark.parametrize("argv", [["lst"], ["copy"], ["check", "a", "b"]])
def test_a_wrong_configs_line_says_how(argv):
    with pytest.raises(InputError, match="configs"):
        shipped.command(argv)


def test_help_of_configs():
    assert shipped.command(["--help"]) == shipped.command([]) == shipped.USAGE


def test_accelerate_configs_by_file_or_name(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("distributed_type: 'NO'\n")
    assert shipped.accelerate_config(str(own)) == own
    with pytest.raises(InputError, match="no accelerate config 'fsdpx'"):
        shipped.accelerate_config("fsdpx")


def test_every_verb_has_a_headline():
    for verb in shipped.verbs():
        assert len(shipped.headline(verb)) > 10
