"""Tables and folders of what to generate: columns, first frames, and errors that name file and row."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visviva.data.fit import fit
from visviva.data.prompts import Prompt, read_prompts
from visviva.data.video import write_video
from visviva.errors import InputError


def table(folder, *rows, name="prompts.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def image(folder, name="red.png", colour=(255, 0, 0), size=(20, 30)):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:] = colour[::-1]  # OpenCV writes blue first
    cv2.imwrite(str(folder / name), pixels)
    return folder / name


def test_a_jsonl_with_images_seeds_and_further_columns(tmp_path):
    image(tmp_path)
    path = table(
        tmp_path, {"prompt": "a ball", "image": "red.png", "seed": 7, "fps": 16, "split": "ood"}, {"caption": "b", "id": "x"}
    )
    first, second = read_prompts(path)
    assert (first.id, first.caption, first.seed, first.fps, dict(first.columns)) == (
        "000000",
        "a ball",
        7,
        16.0,
        {"split": "ood"},
    )
    assert (second.id, second.caption, second.source, second.seed) == ("x", "b", None, None)
    frame = first.first_frame()
    assert frame.shape == (3, 20, 30)
    assert torch.equal(frame[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_csv_reads_the_same(tmp_path):
    image(tmp_path)
    path = tmp_path / "p.csv"
    path.write_text('prompt,image,seed,split\n"a ball, red",red.png,7,ood\nb,,,\n')
    first, second = read_prompts(path)
    assert (first.caption, first.source, first.seed, dict(first.columns)) == (
        "a ball, red",
        tmp_path / "red.png",
        7,
        {"split": "ood"},
    )
    assert (second.id, second.source, second.seed) == ("000001", None, None)


def test_a_folder_of_clips_gives_captions_first_frames_and_what_evaluation_needs(tmp_path):
    frames = torch.zeros(3, 3, 16, 16)
    frames[0] = 1.0
    write_video(tmp_path / "clips" / "a.mp4", frames, 24, crf=0)
    row = {"file_name": "clips/a.mp4", "caption": "white, then black", "fps": 24.0, "scene": 3, "primitive": "drop", "seed": 99}
    table(tmp_path, row, name="metadata.jsonl")
    (prompt,) = read_prompts(tmp_path)
    assert (prompt.id, prompt.caption, prompt.fps) == ("a", "white, then black", 24.0)
    assert dict(prompt.columns) == {"scene": 3, "primitive": "drop"}
    assert prompt.seed is None, "the seed of the simulated scene is not the seed of the noise"
    assert prompt.first_frame().mean() > 0.95
    (listed,) = read_prompts(tmp_path / "metadata.jsonl")
    assert listed.source == prompt.source


def test_plain_videos_take_their_captions_from_text_files(tmp_path):
    write_video(tmp_path / "a.mp4", torch.zeros(3, 3, 16, 16), 24)
    (tmp_path / "a.txt").write_text("nothing moves\n")
    (prompt,) = read_prompts(tmp_path)
    assert (prompt.id, prompt.caption) == ("a", "nothing moves")


def test_a_text_file_has_one_prompt_per_line(tmp_path):
    prompts = read_prompts(table(tmp_path, "a ball falls", "", "  a box slides", name="prompts.txt"))
    assert [(p.id, p.caption) for p in prompts] == [("000000", "a ball falls"), ("000001", "a box slides")]


def test_where_and_limit(tmp_path):
    path = table(tmp_path, *({"prompt": str(i), "split": "id" if i % 2 else "ood", "n": i} for i in range(6)))
    assert [p.caption for p in read_prompts(path, {"split": "id"}, limit=2)] == ["1", "3"]
    assert [p.id for p in read_prompts(path, {"n": "4"})] == ["000004"], "ids do not depend on the filter"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"promt": "a"}], r"row 1: no prompt; give the column 'prompt' or 'caption' \(found: id, promt\)"),
        ([{"prompt": "a", "image": "none.png"}], r"row 1: no file '.*none\.png'"),
        ([{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}], r"row 2: the id 'x' stands twice"),
        ([{"prompt": "a", "seed": "many"}], r"seed = 'many' is not a number"),
        ([{"prompt": "a", "seed": -1}], r"seed = -1 is out of range"),
        ([{"prompt": "a", "fps": 0}], r"fps = 0 is out of range"),
        ([{"prompt": "a", "image": "x", "video": "y"}], r"both an image and a video"),
        ([{"prompt": "a", "fps": 1e12}], r"fps = 1000000000000\.0 is out of range; allowed are 0\.1 to 10000"),
        ([{"prompt": "a", "fps": 1e-9}], r"fps = 1e-09 is out of range"),
        ([{"prompt": "a", "fps": float("nan")}], r"fps = nan is out of range"),
        ([{"prompt": "a", "seed": 10**25}], r"seed = 10+ is out of range; allowed are 0 to 9"),
        (["{broken"], r"line 1: not valid JSON"),
        (["[1]"], r"line 1: expected an object"),
        ([""], r"none of its 0 rows"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_prompts(table(tmp_path, *rows))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"give \.jsonl, \.csv or \.txt"):
        read_prompts(table(tmp_path, "a", name="prompts.pdf"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.png: cannot be read as an image"):
        Prompt("a", "b", broken).first_frame()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "metadata.jsonl"])
def test_bytes_that_are_no_text_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"prompt\n\xff\xfe\x00\x81")
    source = tmp_path if name == "metadata.jsonl" else tmp_path / name
    with pytest.raises(InputError, match=rf"{name}: not a text file \(invalid start byte at byte 7\)"):
        read_prompts(source)


def test_a_filter_that_fits_nothing_names_the_closest_column(tmp_path):
    with pytest.raises(InputError, match="did you mean 'split'"):
        read_prompts(table(tmp_path, {"prompt": "a", "split": "id"}), {"splt": "id"})


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_file_names_are_safe_and_differ_when_ids_do(one, other):
    stems = Prompt(one, "").file_stem, Prompt(other, "").file_stem
    assert all(s.isascii() and "/" not in s and not s.startswith(".") and 0 < len(s) <= 100 for s in stems)
    assert (stems[0] == stems[1]) == (one == other)


def test_fit_keeps_proportions_and_the_centre():
    frames = torch.zeros(2, 3, 40, 80)
    frames[..., 18:22, 38:42] = 1.0  # a square of 4 pixels in the centre
    fitted = fit(frames, 20, 20)
    assert fitted.shape == (2, 3, 20, 20)
    mass = fitted[0, 0]
    rows, columns = torch.arange(20.0)[:, None], torch.arange(20.0)[None]
    assert mass.sum() == pytest.approx(4.0, rel=1e-4)  # half the side length in both directions
    assert (mass * rows).sum() / mass.sum() == pytest.approx(9.5, abs=1e-4)
    assert (mass * columns).sum() / mass.sum() == pytest.approx(9.5, abs=1e-4)
    assert fit(frames, 40, 80) is frames
    assert fit(torch.rand(3, 17, 31), 64, 48).shape == (3, 64, 48)
