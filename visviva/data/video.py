"""Video files: read with their true timestamps and rotation, write H.264 that browsers play.

All video passes through PyAV; folders of frames and animated WebP and PNG through Pillow (`visviva.data.stills`). Errors are
one sentence that names the file. Frames are held in memory: 3 bytes a pixel, twice while they are stacked. A file that would
take more than `SHARE` of the available memory is refused before it is decoded, and the message says how to read less.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from visviva.data.files import whole
from visviva.data.stills import ANIMATED, read_stills
from visviva.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LARGEST = 16_384
"""The largest side of a frame that is read [px]."""
COPIES, SHARE = 3, 0.9
"""Reading holds the decoded frames and stacks them, and measuring needs as much again; it may take this share of the memory."""
RATES = (0.1, 10_000.0)
"""The frame rates that a video can be written with [1/s]."""


@dataclass(frozen=True)
class Video:
    """Decoded frames uint8 (T, 3, H, W), upright; presentation times (T,) float64 [s], from 0; mean rate ``fps`` [1/s].

    ``damage``: what the decoder had to patch or leave out, in a sentence; empty for a sound file.
    """

    frames: Tensor
    timestamps: Tensor
    fps: float
    damage: str = ""


def read_video(
    path: str | Path, max_frames: int | None = None, *, damaged: bool = False, frame_rate: float | None = None
) -> Video:
    """Read a video file, or a folder of frames.

    Args:
        path: any file FFmpeg decodes, an animated WebP or PNG, or a folder of PNG, JPEG or WebP frames in the order of their
            names. Transparency is drawn over black where Pillow reads it and left out where FFmpeg does.
        max_frames: stop after so many frames.
        frame_rate: frames per second of a folder of frames, which knows none itself; ignored for files.
        damaged: return a file in which the decoder patched frames, or found fewer than the file declares, with
            `Video.damage`, instead of raising.

    Raises:
        InputError: the file is missing, is no video, is damaged, holds fewer than two frames, or does not fit into memory.

    Example::

        video = read_video("clip.mp4")
        video.frames.shape, video.fps
    """
    import av

    path = Path(path)
    if not path.exists():
        raise InputError(f"no video file {str(path)!r}; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); record or copy it again")
    try:
        if path.is_dir() or path.suffix.lower() in ANIMATED:
            frames, times = read_stills(path, max_frames, frame_rate, int(available_memory() * SHARE / COPIES))
            decoded = _Decoded(frames, times)
        else:
            decoded = _decode(path, max_frames)
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, EOFError, ValueError, ArithmeticError, SyntaxError, struct.error) as error:
        raise InputError(f"{path}: cannot be decoded as a video ({_reason(error)}); re-encode it or leave it out") from error
    frames = decoded.frames
    if decoded.damage and not damaged:
        raise InputError(f"{path}: the file is damaged: {decoded.damage}; copy or record it again, or leave it out")
    if len(frames) < 2:
        raise InputError(f"{path}: holds {len(frames)} frame(s), but motion needs at least two; give a longer clip")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{path}: the frame size changes within the clip; re-encode it to one size")
    stamps = np.asarray(decoded.times, np.float64)
    if not (np.diff(stamps) > 0).all():
        raise InputError(f"{path}: the timestamps do not increase; re-encode it with a constant frame rate")
    stamps -= stamps[0]
    return Video(_planar(frames), torch.from_numpy(stamps), float((len(stamps) - 1) / stamps[-1]), decoded.damage)


@dataclass
class _Decoded:
    """What came out of the decoder: frames, times [s], which frames it patched, and how many the file declares (0: unknown)."""

    frames: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    patched: list[int] = field(default_factory=list)
    declared: int = 0

    @property
    def damage(self) -> str:
        said = []
        if self.patched:
            shown = ", ".join(map(str, self.patched[:5])) + (", ..." if len(self.patched) > 5 else "")
            said.append(f"the decoder patched {len(self.patched)} of {len(self.frames)} frames ({shown})")
        if self.declared > len(self.frames):
            said.append(f"it declares {self.declared} frames and {len(self.frames)} could be decoded")
        return " and ".join(said)


def _decode(path: Path, max_frames: int | None) -> _Decoded:
    import av
    from av.video.reformatter import VideoReformatter

    found = _Decoded()
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _stream(path, container)
        room = _room(path, container, stream, max_frames)
        reformatter = VideoReformatter()  # one for all frames: a new one per frame costs ten times the conversion
        dropped = 0  # what an edit list leaves out is no damage
        for packet in container.demux(stream):
            dropped += packet.is_discard
            for frame in packet.decode():
                if found.frames and sorted(found.frames[0].shape[:2]) != sorted((frame.height, frame.width)):
                    raise InputError(f"{path}: the frame size changes within the clip; re-encode it to one size")
                turns = round((frame.rotation or 0) / 90) % 4
                found.patched += [len(found.frames)] if frame.is_corrupt else []
                found.frames.append(np.rot90(reformatter.reformat(frame, format="rgb24").to_ndarray(), turns))
                count = len(found.times)
                found.times.append(float(frame.time) if frame.time is not None else count / float(stream.average_rate or 25))
                if max_frames is not None and len(found.frames) == max_frames:
                    return found
                if count >= room:  # the file declared fewer, or none
                    raise InputError(_too_long(path, f"more than {count}", stream))
        found.declared = stream.frames - dropped
    return found


def _planar(frames: list[np.ndarray]) -> Tensor:
    """Return pictures (h, w, 3) as (T, 3, h, w); ten times as fast as permuting them."""
    import cv2

    planar = np.empty((len(frames), 3, *frames[0].shape[:2]), np.uint8)
    for frame, planes in zip(frames, planar, strict=True):
        cv2.split(np.ascontiguousarray(frame), list(planes))
    return torch.from_numpy(planar)


def _stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InputError(f"{path}: holds no video stream; give a video file")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.codec_context.width:
        raise ValueError("its header is cut off")
    if stream.codec_context.width * stream.codec_context.height < 256 * 256:
        stream.codec_context.thread_count = 1  # handing tiny frames between threads costs more than decoding them
    return stream


def _room(path: Path, container: InputContainer, stream: VideoStream, max_frames: int | None) -> int:
    """Return how many frames fit into the memory that is available; refuse a file that needs more, before decoding it."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > LARGEST:
        raise InputError(f"{path}: frames of {width}x{height} pixels; at most {LARGEST} a side are read, reduce the video")
    room = int(available_memory() * SHARE / (3 * width * height * COPIES))
    seconds = (container.duration or 0) / 1e6
    declared = stream.frames or round(seconds * float(stream.average_rate or 0))
    if min(declared, max_frames or declared) > room:
        raise InputError(_too_long(path, str(declared), stream))
    return room


def _too_long(path: Path, count: str, stream: VideoStream) -> str:
    size = f"{stream.codec_context.width}x{stream.codec_context.height}"
    return (
        f"{path}: {count} frames of {size} pixels do not fit into the {available_memory() / 2**30:.1f} GiB of memory that are "
        "available; read fewer (--max-frames of 'visviva evaluate'), or cut or reduce the video"
    )


def available_memory() -> int:
    """Return the memory that programs can still take [bytes]; all of the machine's where the system does not tell."""
    table = Path("/proc/meminfo")
    if table.is_file():
        lines = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split()).rstrip(".")


def write_video(path: str | Path, frames: Tensor, fps: float, crf: int = 12) -> None:
    """Write frames (T, 3, H, W), uint8 or float in [0, 1], as H.264 yuv420p; equal input gives equal bytes.

    The file appears complete or not at all. Height and width must be even (4:2:0 chroma).

    Args:
        path: where to write; ``.mp4`` is usual.
        frames: the clip.
        fps: frames per second, within `RATES`.
        crf: quality of x264, 0 (lossless) to 51; 12 is visually lossless.
    """
    path = Path(path)
    pixels = _to_bytes(path, frames)
    count, height, width = pixels.shape[:3]
    if count < 1 or height % 2 or width % 2:
        raise InputError(
            f"{path}: cannot encode {count} frames of {height}x{width}; height and width must be even, pad or resize"
        )
    if not RATES[0] <= fps <= RATES[1]:
        raise InputError(f"{path}: cannot encode {fps:g} frames per second; allowed are {RATES[0]:g} to {RATES[1]:g}")
    with whole(path) as part:
        _encode(part, pixels, fps, crf)


def _to_bytes(path: Path, frames: Tensor) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise InputError(f"{path}: frames must have shape (T, 3, H, W), given {tuple(frames.shape)}")
    if frames.dtype != torch.uint8:
        if not torch.isfinite(frames).all():
            raise InputError(f"{path}: frames hold NaN or infinity; the clip cannot be written")
        frames = (frames.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return np.ascontiguousarray(frames.cpu().permute(0, 2, 3, 1).numpy())


def _encode(path: Path, pixels: np.ndarray, fps: float, crf: int) -> None:
    import av

    # x264's macroblock tree reads memory it has not set when the picture is small: without it equal frames give equal bytes
    options = {"crf": str(crf), "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
