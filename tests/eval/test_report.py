"""Reports: self-contained, escaped, small, plain-spoken; films play; figures exist for both themes."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import av
import pytest
import torch
from test_newtonbench import TRUE, thrown

from visviva.eval import report
from visviva.eval.newtonbench import failed_clip, score_clip, unscored_clip
from visviva.eval.page import Page, text
from visviva.eval.pictures import film, flow_colours, heat, map_rows, sheet, still
from visviva.eval.recording import Recording
from visviva.eval.run import Picture, Run

HOSTILE = '<script>alert("x")</script><img src="https://evil.example/x.png" onerror=alert(1)>\x00 & "quotes"'


def run(name, gravities, pictures=True):
    clips, shown = [], {}
    for k, gravity in enumerate(gravities):
        masks = thrown(gravity=gravity)
        labels = {"primitive": ("free_fall", "ramp_up")[k % 2], "split": "id", "caption": HOSTILE}
        clips.append(score_clip(masks, TRUE, 16.0, key=f"{k}{HOSTILE if k == 0 else ''}", scene=f"s{k}", **labels))
        frames = (masks.expand(-1, 3, -1, -1) * 200).to(torch.uint8)
        maps = {"flow": torch.randn(11, 2, 48, 48), "field": torch.rand(9, 48, 48)}
        shown[clips[-1].key] = Picture(frames, (TRUE.expand(-1, 3, -1, -1) * 200).to(torch.uint8), maps)
    return Run(name, clips, {"note": HOSTILE}, shown if pictures else {})


class Tags(HTMLParser):
    """Collects tags, attributes and their balance."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page):
    content = page.read_text()
    parser = Tags()
    parser.feed(content)
    assert parser.open == []
    assert "script" not in parser.tags
    for name, value in parser.attributes:
        assert not name.startswith("on")
        if name in ("src", "srcset", "href"):
            assert value.startswith("data:")
    assert "https:" not in re.sub(r"&lt;.*?&gt;", "", content)
    assert "@import" not in content
    assert "url(" not in content
    assert len(content) < 3e6
    return content


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    before, after = run("before " + HOSTILE, [1.0, 0.9, 1.1, 1.2]), run("after", [0.6, 0.6, 0.7, 0.7])
    return checked(report.compare(path, before, after, shown=3, resamples=200))


def test_a_comparison_is_self_contained_and_escapes_hostile_captions(compared):
    assert HOSTILE not in compared
    assert "&lt;script&gt;" in compared
    assert compared.count("<video") == 3
    assert compared.count("prefers-color-scheme:dark") == compared.count("<picture>") + 1


def test_films_in_the_report_decode(compared):
    content = base64.b64decode(re.search(r'src="data:video/mp4;base64,([^"]+)"', compared)[1])
    frames = [f.to_ndarray(format="rgb24") for f in av.open(io.BytesIO(content)).decode(video=0)]
    assert len(frames) == 12
    assert frames[0].shape == (192, 3 * 192 + 2 * 4, 3)


def test_a_comparison_says_what_changed_and_when_it_is_chance(tmp_path, compared):
    assert "on average over the five metrics" in compared
    assert "What changed" in compared
    noisy = run("b", [0.7, 0.8, 0.9, 0.8], pictures=False)
    other = run("c", [0.8, 0.7, 0.8, 0.9], pictures=False)
    page = checked(report.compare(tmp_path / "r.html", noisy, other, resamples=200))
    assert "the difference is not significant" in page
    assert "no significant difference" in page


def test_an_evaluation_explains_its_clips_and_lists_failures(tmp_path):
    scored = run("mine", [0.5, 0.8, 0.2])
    broken = failed_clip(TRUE, 16.0, f"x{HOSTILE}.mp4: cannot be decoded", key="9", scene="s9", primitive="ramp_up", split="id")
    whole = Run("mine", [*scored.clips, broken], {}, scored.pictures)
    recordings = [Recording(HOSTILE, reason="the file is empty", failed=True)]
    page = checked(
        report.evaluation(
            tmp_path / "r.html",
            whole,
            recordings,
            run("old", [0.9] * 3 + [1.0]).__class__("old", [*run("old", [0.9] * 3).clips, broken]),
            shown=2,
            resamples=200,
        )
    )
    assert page.count("<video") == 2
    assert "follows the true path" in page or "of the true one" in page
    assert "Failed clips" in page
    assert "cannot be decoded" in page
    assert "What changed from old to mine" in page
    assert "Recordings without ground truth" in page


def test_text_is_escaped_and_control_characters_dropped():
    assert text('<a b="c">&\x00\x1b') == "&lt;a b=&quot;c&quot;&gt;&amp;"


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    page = Page("t", "l")
    page.table(["a", "b"], [["1", ("2", "small")], ["better", "no significant difference"]])
    written = page.write(tmp_path / "deep" / "r.html")
    assert written.read_text().endswith("</html>\n")
    assert [p.name for p in written.parent.iterdir()] == ["r.html"]
    assert 'class="better"' in written.read_text()


def test_pictures_have_the_promised_shapes_and_colours():
    frames = torch.randint(0, 255, (5, 3, 64, 48), dtype=torch.uint8)
    decoded = [f.to_ndarray(format="rgb24") for f in av.open(io.BytesIO(film([frames, frames[:4]], 10.0))).decode(video=0)]
    assert (len(decoded), decoded[0].shape) == (4, (192, 2 * 144 + 4, 3))
    mixed = torch.randint(0, 255, (5, 3, 128, 96), dtype=torch.uint8)
    assert len(film([mixed, frames], 10.0)) > 500
    right = flow_colours(torch.tensor([[[1.0]], [[0.0]]]), 1.0)
    left = flow_colours(torch.tensor([[[-1.0]], [[0.0]]]), 1.0)
    assert right[:, 0, 0].tolist() == [255, 0, 0]
    assert left[:, 0, 0].tolist() == [0, 255, 255]
    assert flow_colours(torch.zeros(2, 1, 1), 1.0)[:, 0, 0].tolist() == [255, 255, 255]
    assert heat(torch.tensor([[0.0, 1.0, float("nan")]]), 1.0)[:, 0].T.tolist() == [[0, 0, 0], [255, 255, 255], [0, 0, 0]]
    assert still(frames[0])[:2] == b"\xff\xd8"
    clips = [report.pictures.Maps(frames, torch.randn(4, 2, 64, 48), torch.rand(2, 64, 48))] * 2
    rows = map_rows(clips, columns=3)
    assert [len(r) for r in rows] == [3] * 6
    assert sheet(rows)[:4] == b"\x89PNG"


def test_runs_of_which_no_clip_is_scored_are_compared_in_words(tmp_path):
    before, after = (Run(name, [unscored_clip("cannot be read", key="a", scene="s")]) for name in ("base", "after"))
    content = report.compare(tmp_path / "r.html", before, after, resamples=50).read_text()
    assert "nothing can be compared" in content
    assert "cannot be read" in content
