"""Video files: what is written comes back, time and orientation are honoured, broken files get one clear sentence."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from visviva.data import video
from visviva.data.video import read_video, write_video
from visviva.errors import InputError
from visviva.eval.recording import Settings, measure_recording


def pattern(frames: int = 6, height: int = 48, width: int = 64) -> torch.Tensor:
    """A smooth colour pattern that drifts to the right, left half red-ish, right half blue-ish."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    wave = 0.5 + 0.2 * torch.sin((x - 2 * t) / 8.0) * torch.cos(y / 9.0)
    ramp = x / width
    return torch.stack([wave * (1 - ramp), 0.5 * wave, wave * ramp], dim=1).float()


def write_at(path: Path, times: list[float]) -> None:
    """Write a video whose frames stand at the given times [s], left half white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 12000)
        for k, time in enumerate(times):
            image = np.zeros((32, 64, 3), np.uint8)
            image[:, :32] = 255 - 10 * k
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 12000), Fraction(1, 12000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_round_trip_keeps_pixels_and_rate(tmp_path: Path) -> None:
    frames = pattern()
    write_video(tmp_path / "clip.mp4", frames, 32.0)
    video = read_video(tmp_path / "clip.mp4")
    assert video.frames.dtype == torch.uint8
    assert video.frames.shape == frames.shape
    assert video.fps == pytest.approx(32.0, rel=1e-6)
    assert torch.allclose(video.timestamps, torch.arange(6, dtype=torch.float64) / 32, atol=1e-6)
    error = video.frames.float() / 255 - frames
    assert error.abs().mean() < 0.01  # 4:2:0 chroma and x264 at crf 12
    assert error.mean().abs() < 0.005


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pattern(), 24.0)
    write_video(tmp_path / "b.mp4", (pattern() * 255 + 0.5).to(torch.uint8), 24.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


ENCODE = """
import sys, hashlib, torch
from visviva.data.video import write_video
generator, digest = torch.Generator().manual_seed(0), hashlib.sha256()
for k in range(6):
    small = torch.rand(17, 3, 9, 9, generator=generator)
    frames = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear")
    write_video(sys.argv[1], frames, 32.0)
    digest.update(open(sys.argv[1], "rb").read())
print(digest.hexdigest())
"""


def test_bytes_do_not_depend_on_stale_memory(tmp_path: Path) -> None:
    """The allocator fills fresh memory with different patterns: an encoder that reads what it has not set shows here."""
    digests = set()
    for pattern_byte in ("0", "85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": pattern_byte, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", ENCODE, str(tmp_path / "a.mp4")]
        digests.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1


def test_codec_is_the_one_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pattern(), 24.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("fps", [24000 / 1001, 29.97, 32.0, 120.018])
def test_odd_rates_survive(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", pattern(8), fps)
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-3)


def test_true_timestamps_are_honoured(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.05, 0.11, 0.12]
    write_at(tmp_path / "vfr.mp4", times)
    video = read_video(tmp_path / "vfr.mp4")
    assert video.timestamps.tolist() == pytest.approx(times, abs=1e-3)
    assert video.fps == pytest.approx(4 / 0.12, rel=1e-2)


QUARTER_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""Display matrices (a, b, c, d) of clockwise turns, as phones write them into the track header of an MP4."""


@pytest.mark.parametrize(("clockwise", "bright"), [(90, "top"), (180, "right"), (270, "bottom")])
def test_rotation_metadata_turns_the_picture_upright(tmp_path: Path, clockwise: int, bright: str) -> None:
    path = tmp_path / "turned.mp4"
    write_at(path, [0.0, 0.1, 0.2])  # the left half is bright
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (v << 16 for v in QUARTER_TURNS[clockwise])
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    frames = read_video(path).frames.float().mean(dim=(0, 1))
    assert frames.shape == ((64, 32) if clockwise != 180 else (32, 64))
    half = {"top": frames[:32], "right": frames[:, 32:], "bottom": frames[32:]}[bright]
    assert half.mean() > 200


def test_max_frames_stops_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pattern(), 24.0)
    assert len(read_video(tmp_path / "a.mp4", max_frames=3).frames) == 3


def mendable(path: Path, kind: str) -> Path:
    """A video that still decodes: a few bytes of its pictures changed, or its last pictures cut off."""
    if kind == "cut":
        with av.open(str(path), "w", format="avi") as container:
            stream = container.add_stream("mjpeg", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            for image in (pattern(12).permute(0, 2, 3, 1) * 255).byte().numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        content = path.read_bytes()
        path.write_bytes(content[: [found.start() for found in re.finditer(b"00dc", content)][9]])  # the header has one too
    else:
        write_video(path, pattern(20, 96, 128) + 0.05 * torch.rand(20, 3, 96, 128), 30.0)
        content = bytearray(path.read_bytes())
        for place in range(len(content) * 3 // 4, len(content), len(content) // 23):
            content[place] ^= 0x55
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(("kind", "says"), [("cut", r"declares 12 frames and 8 could"), ("flipped", r"patched \d+ of 20")])
def test_a_file_that_the_decoder_mends_is_not_taken_for_a_sound_one(tmp_path: Path, kind: str, says: str) -> None:
    path = mendable(tmp_path / "clip.avi", kind)
    with pytest.raises(InputError, match=rf"clip\.avi: the file is damaged: .*{says}"):
        read_video(path)
    video = read_video(path, damaged=True)
    assert re.search(says, video.damage)
    assert len(video.frames) > 4
    assert read_video(path, 3).damage == ""  # the beginning is sound
    result = measure_recording(path, Settings(laws=False))
    assert result.damage == video.damage
    assert video.damage in result.sentence
    assert video.damage in result.to_json()["damage"]


def test_sound_without_pictures_is_said_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"audio\.mp4: holds no video stream; give a video file$"):
        read_video(tmp_path / "audio.mp4")


def test_a_film_that_does_not_fit_into_memory_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    write_video(tmp_path / "a.mp4", pattern(12), 24.0)
    monkeypatch.setattr(video, "available_memory", lambda: 3 * 64 * 48 * 3 * 8)  # 7 frames, counting copies and share
    with pytest.raises(InputError, match=r"a\.mp4: 12 frames of 64x48 pixels do not fit .*--max-frames"):
        read_video(tmp_path / "a.mp4")
    assert len(read_video(tmp_path / "a.mp4", 7).frames) == 7
    undeclared = tmp_path / "b.h264"
    with av.open(str(undeclared), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in (pattern(12).permute(0, 2, 3, 1) * 255).byte().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"b\.h264: more than 7 frames of 64x48 pixels do not fit"):
        read_video(undeclared)


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 20_000, 16, "gray"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 20_000), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"wide\.mkv: frames of 20000x16 pixels; at most 16384 a side"):
        read_video(tmp_path / "wide.mkv")


def test_no_part_file_is_left_behind(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pattern(), 24.0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is not a video\n" * 100)
    elif kind == "cut":
        write_video(path, pattern(30), 24.0)
        path.write_bytes(path.read_bytes()[:400])
    elif kind == "one-frame":
        write_video(path, pattern(1), 24.0)
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            container.mux(stream.encode(silence))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "is empty"),
        ("text", "cannot be decoded"),
        ("cut", "cannot be decoded"),
        ("one-frame", "holds 1 frame"),
        ("sound", "no video stream"),
        ("missing", "no video file"),
    ],
)
def test_a_broken_file_gets_one_sentence(tmp_path: Path, kind: str, says: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(InputError, match=says) as caught:
        read_video(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (torch.zeros(3, 3, 33, 64), "must be even"),
        (torch.zeros(3, 1, 32, 64), "shape"),
        (torch.full((3, 3, 32, 64), float("nan")), "NaN"),
        (torch.zeros(0, 3, 32, 64), "cannot encode 0 frames"),
    ],
)
def test_frames_that_cannot_be_written_are_refused(tmp_path: Path, frames: torch.Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        write_video(tmp_path / "a.mp4", frames, 24.0)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0.0, 1e-9, 1e12, float("nan")])
def test_rates_that_no_file_can_hold_are_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(InputError, match=r"a\.mp4: cannot encode .* frames per second; allowed are 0\.1 to 10000"):
        write_video(tmp_path / "a.mp4", pattern(), fps)
    assert not list(tmp_path.iterdir())


def test_a_path_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mp4", pattern(), 24.0)


@pytest.mark.real
def test_phone_video_is_portrait_with_its_own_clock(real: Path) -> None:
    video = read_video(real / "video" / "bmc_projectile.mp4")
    assert video.frames.shape == (138, 3, 1920, 1080)
    assert video.fps == pytest.approx(120.018, rel=1e-3)
    assert torch.diff(video.timestamps).std() < 1e-3


@pytest.mark.real
def test_every_real_recording_opens(real: Path) -> None:
    paths = sorted((real / "video").glob("*.mp4"))
    assert paths
    for path in paths:
        video = read_video(path, max_frames=5)
        assert len(video.frames) == 5
        assert 5 < video.fps < 1000
