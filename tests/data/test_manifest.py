"""The manifest loses nothing and repeats nothing, whatever moment a run is killed at."""

import json
import multiprocessing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visviva.data.manifest import FORMAT, Manifest
from visviva.errors import InputError

REQUEST = {"model": "0f3c", "steps": 8}
HEADER = '{"format": 1, "request": {}}\n'


def ids(folder):
    return [row["id"] for row in Manifest.read(folder)]


def test_rows_survive_and_are_known_to_the_next_run(tmp_path):
    with Manifest(tmp_path, REQUEST) as manifest:
        manifest.add({"id": "a", "caption": "fällt"})
        manifest.add({"id": "b", "caption": "roll"})
    with Manifest(tmp_path, REQUEST) as manifest:
        assert list(manifest.done) == ["a", "b"]
        manifest.add({"id": "c"})
    assert ids(tmp_path) == ["a", "b", "c"]
    assert Manifest.read(tmp_path)[0]["caption"] == "fällt"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_cut_anywhere_the_whole_lines_before_the_cut_remain(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    with Manifest(folder, REQUEST) as manifest:
        for k in range(5):
            manifest.add({"id": str(k), "caption": "ü" * k})
    path = folder / "manifest-00000.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    whole = max(content[:cut].count(b"\n") - 1, 0)
    with Manifest(folder, REQUEST) as manifest:
        assert list(manifest.done) == [str(k) for k in range(whole)]
        manifest.add({"id": "next"})
    assert ids(folder) == [*map(str, range(whole)), "next"]
    assert json.loads(path.read_text().splitlines()[0]) == {"format": FORMAT, "request": REQUEST}


def test_shards_of_another_number_of_processes_are_merged(tmp_path):
    for shard in range(3):
        with Manifest(tmp_path, REQUEST, shard) as manifest:
            manifest.add({"id": f"s{shard}"})
    with Manifest(tmp_path, REQUEST, shard=1) as manifest:
        assert set(manifest.done) == {"s0", "s1", "s2"}
    assert ids(tmp_path) == ["s0", "s1", "s2"]


def test_an_item_twice_is_a_bug(tmp_path):
    with Manifest(tmp_path, REQUEST) as manifest:
        manifest.add({"id": "a"})
        with pytest.raises(ValueError, match="already"):
            manifest.add({"id": "a"})
    assert ids(tmp_path) == ["a"]


def test_other_settings_do_not_mix_and_are_named(tmp_path):
    Manifest(tmp_path, REQUEST).close()
    with pytest.raises(InputError, match=r"steps: 8 there, 12 now"):
        Manifest(tmp_path, {**REQUEST, "steps": 12}, shard=3)
    Manifest(tmp_path, dict(reversed(REQUEST.items()))).close()  # the order of keys means nothing


def test_a_newer_format_is_refused_and_kept(tmp_path):
    path = tmp_path / "manifest-00000.jsonl"
    path.write_text(json.dumps({"format": FORMAT + 1, "request": REQUEST, "new": 1}) + "\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"newer visviva \(format 2, this one reads up to 1\)"):
        Manifest(tmp_path, REQUEST)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    ['{"id": "a"}\n', "not json\n", "[]\n", HEADER + '{"id": 3}\n', HEADER + "{broken\n{}\n"],
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest-00002.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"manifest-00002\.jsonl"):
        Manifest(tmp_path, {})


def _second_run(folder, answers):
    try:
        Manifest(folder, REQUEST)
    except InputError as error:
        answers.put(str(error))
    else:
        answers.put("opened")


def test_two_runs_into_one_folder_are_refused(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with Manifest(tmp_path, REQUEST):
        process = context.Process(target=_second_run, args=(tmp_path, answers))
        process.start()
        answer = answers.get(timeout=30)
        process.join()
    assert "another run is writing" in answer
