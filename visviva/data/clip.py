"""One clip: frames with their time base, and whatever ground truth is known of it.

On disk a clip is an ordinary video file, and beside it a ``.npz`` with the same stem that holds the ground truth.
Symbols: T frames, N objects, H and W pixels. Image y points down; the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from visviva.data.arrays import read_arrays, write_arrays
from visviva.data.files import read_text
from visviva.data.video import read_video, write_video
from visviva.errors import InputError

STATES = ("position", "velocity", "quaternion", "angular_velocity")
TRUTH = ("masks", "flow", "flow_valid", "depth", "trajectory", "visible", "metres_per_pixel", "contact")
SMALL = ("masks", "trajectory", "visible", "metres_per_pixel", "contact")


@dataclass
class Clip:
    """A clip and its ground truth; what is not known is None.

    Attributes:
        frames: (T, 3, H, W) float32 in [0, 1].
        fps: frames per second.
        caption: text that describes it.
        timestamps: presentation times (T,) float64 [s], where they come from a file.
        masks: visible pixels of each object (T, N, H, W), bool.
        flow: optical flow from frame t to t+1 (T-1, 2, H, W) [px/frame].
        flow_valid: where the flow's target is in the image and not hidden (T-1, H, W), bool.
        depth: distance along the view axis (T, H, W) [m].
        trajectory: projected centre of mass (T, N, 2) as (x, y) [px].
        visible: whether any pixel of the object is seen (T, N), bool.
        states: ``position`` (T, N, 3) [m], ``velocity`` [m/s], ``quaternion`` (T, N, 4) as (w, x, y, z),
            ``angular_velocity`` [rad/s]; world frame, z up.
        metres_per_pixel: size of a pixel at each object's depth (N,) [m].
        contact: frames next to a contact or reversal (T,), bool; constant acceleration does not hold there.
        contact_times: when those happen [s].
        meta: primitive, split, scene, stated numbers.
    """

    frames: Tensor
    fps: float
    caption: str = ""
    timestamps: Tensor | None = None
    masks: Tensor | None = None
    flow: Tensor | None = None
    flow_valid: Tensor | None = None
    depth: Tensor | None = None
    trajectory: Tensor | None = None
    visible: Tensor | None = None
    states: dict[str, Tensor] = field(default_factory=dict)
    metres_per_pixel: Tensor | None = None
    contact: Tensor | None = None
    contact_times: tuple[float, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path, max_frames: int | None = None) -> Clip:
        """Read a video file, with the ground truth in the ``.npz`` beside it and the caption in the ``.txt``, if any."""
        path = Path(path)
        video = read_video(path, max_frames)
        clip = cls(video.frames.float() / 255.0, video.fps, timestamps=video.timestamps)
        text, arrays = path.with_suffix(".txt"), path.with_suffix(".npz")
        if text.is_file():
            clip.caption = read_text(text).strip()
        if arrays.is_file():
            clip.load_arrays(arrays, cut=len(clip.frames) == max_frames)
        return clip

    def write(self, folder: str | Path, name: str, *, arrays: str = "all", crf: int = 12) -> dict[str, Any]:
        """Write ``folder/name.mp4`` and, unless ``arrays`` is ``"none"``, ``folder/name.npz``; return the metadata row.

        ``arrays`` is ``"all"``, ``"small"`` (masks, trajectory and states, without flow and depth) or ``"none"``.
        """
        folder = Path(folder)
        if arrays not in ("all", "small", "none"):
            raise InputError(f"arrays must be 'all', 'small' or 'none', given {arrays!r}")
        row: dict[str, Any] = {"file_name": f"{name}.mp4"}
        write_video(folder / f"{name}.mp4", self.frames, self.fps, crf)
        if arrays != "none":
            row["arrays"] = f"{name}.npz"
            self.save_arrays(folder / f"{name}.npz", TRUTH if arrays == "all" else SMALL)
        return row | {"caption": self.caption, "fps": self.fps} | self.meta

    def save_arrays(self, path: str | Path, names: tuple[str, ...] = TRUTH) -> None:
        """Write the named truths and the states to one ``.npz``; equal clips give equal bytes."""
        known = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known |= {f"state_{name}": value for name, value in self.states.items()}
        about = {"fps": self.fps, "caption": self.caption, "meta": self.meta}
        about |= {"contact_times": list(self.contact_times), "width": int(self.frames.shape[-1])}
        write_arrays(path, known, about)

    def load_arrays(self, path: str | Path, *, cut: bool = False) -> None:
        """Fill the ground truth from a ``.npz`` that `save_arrays` wrote; it must have as many frames as the clip.

        With ``cut`` the clip may be the beginning of a longer one, and gets the beginning of the truth.
        """
        path, count = Path(path), len(self.frames)
        stored = read_arrays(path)
        if stored.frames is not None and (stored.frames < count if cut else stored.frames != count):
            raise InputError(
                f"{path}: the ground truth has {stored.frames} frames and the video {count}; simulate or copy both again"
            )
        arrays = stored.first(count)
        for name in ("masks", "flow", "flow_valid", "depth"):
            if name in arrays and arrays[name].shape[-2:] != self.frames.shape[-2:]:
                truth, frame = (tuple(x.shape[-2:]) for x in (arrays[name], self.frames))
                what = f"the {name} are" if name == "masks" else f"{name} is"
                raise InputError(f"{path}: {what} {truth} and the video is {frame} pixels; simulate or copy both again")
        for name, tensor in arrays.items():
            if name.startswith("state_"):
                self.states[name.removeprefix("state_")] = tensor
            else:
                setattr(self, name, tensor)
        about = stored.about
        self.fps, self.caption, self.meta = about["fps"], about["caption"], about["meta"]
        self.contact_times = tuple(about["contact_times"])

    def known(self) -> list[str]:
        """Names of the ground truths that this clip has."""
        return [f.name for f in fields(self) if f.name in TRUTH and getattr(self, f.name) is not None]
