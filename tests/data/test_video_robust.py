"""Hundreds of broken, odd and unusual files: each is decoded and measured, or refused in one sentence; none ends a batch."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from visviva.configs.evaluate import EvaluateRecipe
from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.eval.collection import collect
from visviva.eval.recording import Settings, measure_recording
from visviva.pipelines import evaluate

CONTAINERS = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "mkv": ("ffv1", "yuv420p"),
    "webm": ("libvpx", "yuv420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "gif": ("gif", "rgb8"),
    "mpg": ("mpeg2video", "yuv420p"),
    "ts": ("mpeg2video", "yuv420p"),
    "wmv": ("wmv2", "yuv420p"),
    "flv": ("libx264", "yuv420p"),
    "apng": ("apng", "rgb24"),
    "3gp": ("mpeg4", "yuv420p"),
}
FORMATS = {"mkv": "matroska", "mpg": "mpeg", "ts": "mpegts", "wmv": "asf"}


def thrown(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """A bright square that falls before a dark, textured wall: frames (T, H, W, 3)."""
    random = np.random.default_rng(0)
    wall = (60 + 30 * np.sin(np.arange(width) / 5)[None] * np.cos(np.arange(height) / 4)[:, None])[..., None]
    frames = np.repeat((wall + random.normal(0, 1, (height, width, 3)))[None], count, axis=0)
    for k in range(count):
        x, y = 8 + 3 * k, 6 + round(0.25 * k**2)
        frames[k, y : y + 8, x : x + 8] = (235, 220, 60)
    return frames.clip(0, 255).astype(np.uint8)


def write(path: Path, frames: np.ndarray, codec: str = "libx264", pixels: str = "yuv420p", rate: int = 25, **options) -> Path:
    kind = FORMATS.get(path.suffix[1:], path.suffix[1:])
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options={k: str(v) for k, v in options.items()})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def refused_or_read(path: Path) -> str:
    """Read and measure a file; return how it went. Anything but a result or one sentence is a failure of the test."""
    result = measure_recording(path, Settings(laws=False), name=path.name)
    assert "\n" not in result.sentence
    assert len(result.sentence) < 1200
    json.dumps(result.to_json(), allow_nan=False)
    if result.failed:
        assert result.reason
        return "refused"
    return "damaged" if result.damage else ("not measured" if result.reason else "measured")


@pytest.mark.parametrize(
    ("codec", "pixels", "ending"),
    [
        ("libx265", "yuv420p10le", "mov"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("libsvtav1", "yuv420p10le", "mp4"),
        ("prores_ks", "yuv422p10le", "mov"),
        ("huffyuv", "yuv422p", "avi"),
        ("rawvideo", "bgr24", "avi"),
    ],
)
def test_codecs_of_phones_cameras_and_the_web_decode(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg does not write {codec}")
    video = read_video(write(tmp_path / f"clip.{ending}", thrown(12, 96, 128), codec, pixels))
    assert video.frames.shape == (12, 3, 96, 128)
    shown, true = video.frames[5].float(), torch.from_numpy(thrown(12, 96, 128)[5]).permute(2, 0, 1).float()
    assert (shown - true).abs().median() < 12


@pytest.mark.parametrize("ending", sorted(CONTAINERS))
def test_common_containers_decode(tmp_path: Path, ending: str) -> None:
    codec, pixels = CONTAINERS[ending]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg does not write {codec}")
    path = write(tmp_path / f"clip.{ending}", thrown(), codec, pixels)
    video = read_video(path)
    assert abs(len(video.frames) - 12) <= 1
    assert video.frames.shape[1:] == (3, 48, 64)
    assert video.fps == pytest.approx(25, rel=0.03)
    assert video.damage == ""
    late = video.frames[8].float()
    assert late[:2, 24:28, 34:38].mean() > 150  # the square where it should be, whatever the palette
    assert late[:, :10, :20].mean() < 130


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_folder_of_frames_is_a_clip_in_the_order_of_its_numbers(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, image in enumerate(thrown()):
        Image.fromarray(image).save(folder / f"f{k}.{ending}")  # f10 sorts before f2 as text
    video = read_video(folder, frame_rate=30.0)
    assert video.frames.shape == (12, 3, 48, 64)
    assert video.fps == pytest.approx(30)
    assert (video.frames[10].float() - torch.from_numpy(thrown()[10]).permute(2, 0, 1).float()).abs().mean() < 6
    with pytest.raises(InputError, match="does not know its rate; give its frames per second"):
        read_video(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no frames"):
        read_video(tmp_path / "nothing", frame_rate=30.0)
    assert [item.path for item in collect([str(folder)])] == [folder]
    assert measure_recording(folder, Settings(laws=False, frame_rate=30.0)).count == 12


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_animated_images_keep_their_own_times_and_lose_their_transparency(tmp_path: Path, kind: str) -> None:
    images = [Image.fromarray(np.dstack([f, np.full(f.shape[:2], 255, np.uint8)])) for f in thrown()]
    images[3].putalpha(0)
    path = tmp_path / f"clip.{kind}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[20] * 6 + [40] * 6, lossless=True)
    video = read_video(path)
    assert len(video.frames) == 12
    assert torch.diff(video.timestamps).tolist() == pytest.approx([0.02] * 6 + [0.04] * 5)
    assert int(video.frames[3].max()) == 0
    assert (video.frames[5] == torch.from_numpy(thrown()[5]).permute(2, 0, 1)).float().mean() > 0.99


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "gray"),
        ("ffv1", "gray16le"),
        ("ffv1", "yuva420p"),
        ("ffv1", "bgra"),
        ("ffv1", "gray"),
        ("libx264", "yuv444p"),
    ],
)
def test_depths_grey_and_alpha_become_rgb(tmp_path: Path, codec: str, pixels: str) -> None:
    video = read_video(write(tmp_path / "clip.mkv", thrown(), codec, pixels))
    assert video.frames.dtype == torch.uint8
    assert video.frames.shape == (12, 3, 48, 64)
    assert video.frames[5].float().std() > 10


@pytest.mark.parametrize("size", [(49, 65), (33, 17), (16, 2), (2, 16), (1, 1)])
def test_odd_and_tiny_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write(tmp_path / "clip.mkv", thrown(8, *(max(s, 48) for s in size))[:, : size[0], : size[1]], "ffv1", "bgr0")
    assert read_video(path).frames.shape == (8, 3, *size)
    assert refused_or_read(path) in ("measured", "not measured", "refused")


@pytest.mark.slow
def test_ten_thousand_tiny_frames_are_read_and_measured(tmp_path: Path) -> None:
    count = 10_000
    frames = np.full((count, 16, 16, 3), 60, np.uint8)
    frames += (np.arange(16)[None, :, None, None] % 4 * 6).astype(np.uint8)
    for k in range(count):
        x = 2 + (k // 40) % 10
        frames[k, 4:8, x : x + 4] = 220
    path = write(tmp_path / "long.mkv", frames, "ffv1", "bgr0")
    assert read_video(path).frames.shape == (count, 3, 16, 16)
    assert refused_or_read(path) in ("measured", "not measured")


def variable(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 12000)
        now = 0
        for k, image in enumerate(thrown()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = now, Fraction(1, 12000)
            now += 400 + 300 * (k % 3)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    write(path, thrown())
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def mutated(folder: Path, base: list[Path], count: int) -> list[Path]:
    """Copies of the files with random damage: cut, bytes flipped, blocks zeroed, removed, doubled or filled with noise."""
    random, made = np.random.default_rng(0), []
    for k in range(count):
        source = base[k % len(base)]
        content = bytearray(source.read_bytes())
        size, kind = len(content), k // len(base) % 6
        start = int(random.integers(0, size))
        if kind == 0:
            content = content[:start]
        elif kind == 1:
            for place in random.integers(0, size, int(random.integers(1, 60))):
                content[place] ^= int(random.integers(1, 256))
        elif kind == 2:
            for place in random.integers(0, min(size, 700), int(random.integers(1, 12))):  # the header
                content[place] = int(random.integers(0, 256))
        elif kind == 3:
            del content[start : start + int(random.integers(1, 400))]
        elif kind == 4:
            content[start:start] = content[start : start + int(random.integers(1, 2000))]
        else:
            content[start : start + 200] = random.integers(0, 256, min(200, size - start)).astype(np.uint8).tobytes()
        path = folder / f"m{k:04d}{source.suffix}"
        path.write_bytes(content)
        made.append(path)
    return made


def test_no_damaged_file_ends_a_batch(tmp_path: Path) -> None:
    base = [write(tmp_path / f"base.{e}", thrown(), c, p) for e, (c, p) in CONTAINERS.items() if c in av.codecs_available]
    base += [variable(tmp_path / "variable.mp4"), turned(tmp_path / "turned.mp4")]
    images = [Image.fromarray(f) for f in thrown()]
    images[0].save(tmp_path / "base.webp", save_all=True, append_images=images[1:], duration=40)
    base.append(tmp_path / "base.webp")
    folder = tmp_path / "clips"
    folder.mkdir()
    files = mutated(folder, base, 540)
    outcomes = {path.name: refused_or_read(path) for path in files}
    counted = {kind: list(outcomes.values()).count(kind) for kind in set(outcomes.values())}
    assert len(outcomes) == 540
    assert counted.get("refused", 0) > 50, counted
    assert sum(v for k, v in counted.items() if k != "refused") > 50, counted


def test_a_batch_lists_every_file_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    base = [write(folder / "sound.mp4", thrown()), write(folder / "sound.avi", thrown(), "mjpeg", "yuvj420p")]
    mutated(folder, base, 4)
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mkv").write_bytes(b"")
    write(folder / "one.mp4", thrown(1))
    output = evaluate.run(EvaluateRecipe(clips=[str(folder)], output=str(tmp_path / "out"), laws=False))
    listed = {r["name"]: r for r in json.loads((output / "metrics.json").read_text())["recordings"]}
    assert len(listed) == 9
    for name in ("text.mp4", "empty.mkv", "one.mp4"):
        assert listed[name]["outcome"] == "failed"
        assert listed[name]["reason"]
    assert listed["sound.mp4"]["outcome"] in ("measured", "not measured")
    page = (output / "report.html").read_text()
    assert "cannot be decoded" in page
    assert page.count("sound.mp4") >= 2
