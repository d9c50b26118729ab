"""The playground: what the page may send, what its button makes and measures, and the page itself in a real browser."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image

from visviva import cli
from visviva.configs.playground import PlaygroundRecipe
from visviva.data.scenes.simulation import simulate
from visviva.errors import InputError
from visviva.models.backbones import families
from visviva.models.control import Point, Wind, add_control, parse_force
from visviva.models.control.saved import is_control
from visviva.pipelines.playground import page
from visviva.pipelines.playground.studio import Studio, drawn, text, whole
from visviva.pipelines.posttrain import export

PUSH = Point(0.4, 0.6, angle=30.0, magnitude=0.8)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Adapters and force control that have seen no training: they change nothing."""
    folder = tmp_path_factory.mktemp("control") / "lora"
    backbone = families.load("tiny")
    add_control(backbone, 1)
    backbone.transformer.add_adapter(LoraConfig(r=1, lora_alpha=1, target_modules=backbone.lora_targets))
    named = backbone.transformer.named_parameters()
    export.lora(backbone, {f"transformer.{n}": p for n, p in named if "lora_" in n or is_control(n)}, folder)
    return folder


@pytest.fixture(scope="module")
def studio(control, tmp_path_factory):
    return Studio(PlaygroundRecipe(lora=str(control), output=str(tmp_path_factory.mktemp("out")), steps=2, device="cpu"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return Studio(PlaygroundRecipe(output=str(tmp_path_factory.mktemp("plain")), steps=2, device="cpu"))


@pytest.fixture(scope="module")
def picture(studio):
    return studio.scene("push", 0)[0]


# ------------------------------------------------------------------------------------------------- what the page may send


def test_arrows_of_the_page_are_forces():
    assert drawn([{"x": 0.4, "y": 0.6, "angle": 30, "magnitude": 0.8}]) == [PUSH]
    assert drawn([]) == []


@pytest.mark.parametrize(
    ("arrows", "words"),
    [
        ("point", "no list"),
        (None, "no list"),
        ([3], "no list"),
        ([{"x": 0.4, "y": 0.6, "angle": 30}], "magnitude missing"),
        ([{"x": 0.4, "y": 0.6, "angle": 30, "magnitude": 2}], "magnitude 2"),
        ([{"x": -0.1, "y": 0.6, "angle": 30, "magnitude": 0.5}], "outside the picture"),
        ([{"x": 0.4, "y": 0.6, "angle": float("nan"), "magnitude": 0.5}], "finite"),
        ([{"x": 0.4, "y": 0.6, "angle": None, "magnitude": 0.5}], "no number"),
        ([{"x": "0.4,x=0.5", "y": 0.6, "angle": 30, "magnitude": 0.5}], "twice"),
        ([{"x": 0.4, "y": 0.6, "angle": 30, "magnitude": 0.5, "mass": 3}], "mass"),
    ],
)
def test_what_is_no_arrow_is_refused(arrows, words):
    with pytest.raises(InputError, match=words):
        drawn(arrows)


share = st.floats(0, 1)


@given(st.builds(Point, share, share, st.floats(-720, 720), share) | st.builds(Wind, st.floats(-720, 720), share))
def test_a_force_in_words_is_the_same_force(force):
    assert parse_force(text(force)) == force


@pytest.mark.parametrize("value", [-1, 0.5, float("nan"), float("inf"), None, "3", 2.0**63])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match="whole number"):
        whole(value, "the seed")
    assert whole(3.0, "the seed") == 3


def test_a_picture_is_scaled_to_the_model_and_cut(studio, tmp_path):
    colours = np.zeros((60, 200, 4), np.uint8)
    colours[..., 3] = 255
    colours[:, 100:, 0] = 250
    Image.fromarray(colours).save(tmp_path / "wide.png")
    made = studio.picture(tmp_path / "wide.png")
    assert made.shape == (64, 64, 3)
    assert made.dtype == np.uint8
    assert made[:, :30].max() == 0
    assert made[:, 34:, 0].min() == 250


def test_bad_pictures_are_sentences(studio, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    Image.fromarray(np.full((50, 50, 3), 90, np.uint8)).save(whole_file := BytesIO(), "PNG")
    (tmp_path / "half.png").write_bytes(whole_file.getvalue()[:60])
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("L", (30, 30)).save(tmp_path / "moving.gif")
    for name in ("notes.png", "half.png", "drawing.eps", "moving.gif"):
        with pytest.raises(InputError, match=rf"{name}: no picture that can be read; give a whole PNG, JPEG"):
            studio.picture(tmp_path / name)
    Image.new("1", (5000, 5000)).save(tmp_path / "huge.png")
    with pytest.raises(InputError, match="5000 x 5000 pixels; give at most 16777216"):
        studio.picture(tmp_path / "huge.png")
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png"):
        studio.picture(tmp_path / "bomb.png")


# ------------------------------------------------------------------------------------------------- what the button makes


def test_the_command_line_makes_the_same_clip(studio, picture):
    made = studio.make(picture, " a ball is pushed ", [PUSH, Point(0.7, 0.2, 200.25, 0.1)], seed=7, steps=2)
    row = json.loads((made.clip.parent / "prompts.jsonl").read_text())
    assert (row["prompt"], row["seed"]) == ("a ball is pushed", 7)
    words = shlex.split(made.command)
    assert words[:2] == ["visviva", "generate"]
    assert words[-3:] == ["--force", text(PUSH), "point:x=0.7,y=0.2,angle=200.25,magnitude=0.1"]
    assert cli.main(words[1:]) == 0
    assert (made.clip.parent / "again" / "clips" / "clip.mp4").read_bytes() == made.clip.read_bytes()


def test_what_was_never_trained_changes_nothing_and_what_was_follows_the_arrow(studio, picture):
    def clip(*forces):
        return studio.make(picture, "a ball", list(forces), seed=1, steps=2).clip.read_bytes()

    still = clip()
    assert clip(PUSH) == still
    transformer, random = studio.backbone.transformer, torch.Generator().manual_seed(0)
    trained = [transformer.blocks[0].control.inject.weight, transformer.patch_embedding.control.weight]
    before = [weight.clone() for weight in trained]
    with torch.no_grad():
        for weight in trained:
            weight += 0.3 * torch.randn(weight.shape, generator=random)
        clips = [clip(PUSH), clip(Point(0.4, 0.6, 210.0, 0.8)), clip(Wind(0.0, 0.8)), clip()]
        for weight, value in zip(trained, before, strict=True):
            weight.copy_(value)
    assert len({still, *clips}) == 5


def test_folders_are_counted(studio, picture):
    one, two = (studio.make(picture, "a ball", [], 0, 1).clip for _ in range(2))
    assert int(two.parent.name) == int(one.parent.name) + 1


def test_forces_without_force_control_are_refused(plain, picture):
    for force in (PUSH, Wind(0.0, 0.5)):
        with pytest.raises(InputError, match="no force control: arrows and wind cannot act"):
            plain.make(picture, "a ball", [force], 0, 1)
    made = plain.make(picture, "a ball", [], 0, 1)
    assert "--force" not in made.command
    assert made.clip.is_file()
    assert len(list(plain.output.iterdir())) == 1, "what is refused leaves no folder"


def test_what_does_not_go_together_is_refused(studio, picture):
    with pytest.raises(InputError, match="wind together with another force"):
        studio.make(picture, "a ball", [PUSH, Wind(0.0, 0.5)], 0, 1)
    with pytest.raises(InputError, match="9 forces"):
        studio.make(picture, "a ball", [PUSH] * 9, 0, 1)
    with pytest.raises(InputError, match="no prompt"):
        studio.make(picture, "  ", [PUSH], 0, 1)
    with pytest.raises(InputError, match="the seed"):
        studio.make(picture, "a ball", [PUSH], 0.5, 1)


# ------------------------------------------------------------------------------------------------- what is measured


def test_paths_are_those_of_the_simulator(studio):
    off = []
    for clip in simulate("push", 8, seed=5, flow=False):
        forces = [force for force in map(parse_force, clip.meta["forces"]) if force.magnitude > 0.2]
        for force in forces:
            told, [path] = studio.measure(clip.frames[None], [force])
            start = torch.tensor([force.x, 1 - force.y]) * 64
            moved = clip.trajectory[:, int((clip.trajectory[0] - start).norm(dim=-1).argmin())]
            gone = (torch.tensor(path[-1]) - torch.tensor(path[0])) * 64
            off.append(float((gone - (moved[-1] - moved[0])).norm()))
            assert f"(pushed towards {force.angle:.0f}); laws of what was pushed: constant_acceleration" in told
    assert len(off) >= 5
    assert max(off) < 1  # px


def test_a_frozen_clip_obeys_nothing(studio, picture):
    frames = torch.from_numpy(picture).permute(2, 0, 1).float().expand(1, 17, -1, -1, -1) / 255
    told, paths = studio.measure(frames, [PUSH])
    assert paths == []
    assert told.startswith("arrow 1: nothing that begins there moves; laws of what moves most: ")
    assert "constant_acceleration could not be measured" in told


# ------------------------------------------------------------------------------------------------- the page


def test_without_gradio_the_remedy_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["playground", "--output", str(tmp_path)]) == 2
    assert "pip install 'visviva[playground]'" in capsys.readouterr().err


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind((page.HOST, 0))
        return free.getsockname()[1]


@pytest.fixture
def elsewhere(monkeypatch):
    """Every address outside of this machine that Python asked for."""
    asked = []
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def watched_connect(own, address):
        asked.extend([address] if own.family != socket.AF_UNIX and address[0] not in (page.HOST, "::1", "localhost") else [])
        return connect(own, address)

    def watched_lookup(host, *rest, **options):
        asked.extend([host] if host not in (None, page.HOST, "::1", "localhost") else [])
        return lookup(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    monkeypatch.setattr(socket, "getaddrinfo", watched_lookup)
    return asked


@pytest.fixture
def served(request, port, elsewhere, monkeypatch):
    """The page of a studio (by fixture name), its address, and the studio."""
    pytest.importorskip("gradio", reason="the extra 'playground' is not installed")
    studio = request.getfixturevalue(request.param)
    recipe = studio.recipe.model_copy(update={"port": port})
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # put back what `prepare` changes
    blocks = page.page(page.prepare(recipe), studio)
    page.serve(blocks, recipe)
    yield f"http://{page.HOST}:{port}", studio
    blocks.close()


@pytest.fixture
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra 'browser')")
    found = os.environ.get("VISVIVA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium on this machine; name one in VISVIVA_CHROMIUM")
    with driver.sync_playwright() as session:
        chromium = session.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser, address):
    """A tab with the page, what it asked for, and what it complained about."""
    tab, asked, wrong = browser.new_page(viewport={"width": 1200, "height": 900}), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.extend([message.text] if message.type == "error" else []))
    tab.goto(address)
    tab.wait_for_selector("#picture canvas")
    return tab, asked, wrong


def dragged(tab, start, end):
    """Drag over the canvas, from and to shares of it; return what arrow that is, to the pixel."""
    box = tab.locator("#picture canvas").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    tab.mouse.move(*points[1], steps=4)
    tab.mouse.up()
    return box


def pressed(tab):
    """Press the button and wait for what it says."""
    tab.click("#make")
    tab.wait_for_function("document.querySelector('#told textarea').value", timeout=60_000)
    return tab.input_value("#told textarea")


@pytest.mark.slow
@pytest.mark.parametrize("served", ["studio"], indirect=True)
def test_an_arrow_dragged_in_a_browser_becomes_a_clip(served, browser, elsewhere):
    address, studio = served
    tab, asked, wrong = opened(browser, address)
    before = tab.locator("#picture canvas").screenshot()
    box = dragged(tab, (0.3, 0.5), (0.55, 0.25))
    dragged(tab, (0.8, 0.8), (0.1, 0.8))  # longer than the longest
    assert tab.locator("#picture canvas").screenshot() != before
    told = pressed(tab)
    tab.wait_for_selector("#clip video")
    tab.wait_for_function("document.querySelector('#clip video').readyState >= 2")
    assert told.count("arrow") == 2
    assert "laws of" in told

    words = shlex.split(tab.input_value("#again textarea"))
    first, second = (parse_force(word) for word in words[words.index("--force") + 1 :])
    pixel = 1 / box["width"]
    assert (first.x, first.y) == pytest.approx((0.3, 0.5), abs=pixel)
    assert first.angle == pytest.approx(45, abs=1)
    assert first.magnitude == pytest.approx(2 * 0.25 * 2**0.5, abs=2 * pixel)
    assert (second.angle, second.magnitude) == (180, 1)
    latest = max(path for path in studio.output.iterdir() if path.name.isdigit())
    assert words[2] == str(latest / "prompts.jsonl")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert elsewhere == []
    assert wrong == []
    if "VISVIVA_SCREENSHOT" in os.environ:
        tab.screenshot(path=os.environ["VISVIVA_SCREENSHOT"], full_page=True)

    tab.click("#clear")
    tab.click("#windy input")
    tab.wait_for_timeout(500)
    last = tab.input_value("#again textarea")
    tab.click("#make")
    tab.wait_for_function("last => document.querySelector('#again textarea').value != last", arg=last, timeout=60_000)
    assert tab.input_value("#again textarea").endswith("--force wind:angle=0.0,speed=0.5")

    away = "http://198.51.100.1/"  # the browser refuses by itself
    refused = "document.addEventListener('securitypolicyviolation', (e) => done(e.blockedURI))"
    assert tab.evaluate(f"new Promise((done) => {{ {refused}; fetch('{away}').catch(() => 0) }})") == away


@pytest.mark.slow
@pytest.mark.parametrize("served", ["plain"], indirect=True)
def test_what_goes_wrong_is_text_on_the_page(served, browser, tmp_path):
    address, _ = served
    tab, _, wrong = opened(browser, address)
    assert "This model has no force control" in tab.inner_text("#what")
    dragged(tab, (0.3, 0.5), (0.55, 0.25))
    assert pressed(tab).startswith("Error: This model has no force control")
    assert not tab.locator("#clip video").count()

    bad = tmp_path / "<img src=x onerror=window.hurt=1>.png"
    bad.write_text("no picture")
    tab.set_input_files("input[type=file]", bad)
    tab.wait_for_function("document.querySelector('#told textarea').value.includes('no picture')")
    assert tab.evaluate("window.hurt") is None
    good = tmp_path / "blue.png"
    Image.new("RGB", (100, 50), (10, 20, 200)).save(good)
    tab.set_input_files("input[type=file]", good)
    tab.wait_for_function("document.querySelector('#told textarea').value == ''")
    tab.wait_for_timeout(300)
    corner = "[...document.querySelector('#picture canvas').getContext('2d').getImageData(256, 256, 1, 1).data]"
    assert tab.evaluate(corner) == [10, 20, 200, 255]

    caption = tab.input_value("#prompt textarea, #prompt input")
    for number, selector, words in (
        ("-1", "#told textarea", "the scene is -1"),
        ("3", "#prompt textarea, #prompt input", "throw"),
    ):
        tab.get_by_label("Number of the scene").fill(number)
        tab.keyboard.press("Tab")
        tab.click("#draw")
        found = "([selector, words, old]) => (v => v.includes(words) && v != old)(document.querySelector(selector).value)"
        tab.wait_for_function(found, arg=[selector, words, caption])
    assert wrong == []


@pytest.mark.parametrize("served", ["plain"], indirect=True)
def test_the_page_is_for_this_machine_alone(served):
    import httpx

    address, studio = served
    answer = httpx.get(address)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis.com" not in answer.text
    assert httpx.get(address, headers={"host": "visviva.example"}).status_code == 400
    assert httpx.get(f"{address}/gradio_api/info").json()["named_endpoints"] == {}
    with pytest.raises(InputError, match=r"port \d+ of 127\.0\.0\.1 cannot be opened"):
        page.serve(page.page(page.prepare(studio.recipe), studio), studio.recipe.model_copy(update={"port": int(address[-5:])}))
