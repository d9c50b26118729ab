"""Real recordings taken apart into background and object, and played again with their own or with broken physics."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from visviva.data.video import read_video
from visviva.eval.camera import stabilised
from visviva.eval.track import reduced, track_object
from visviva.physics.sprites import Sprites, cut


class Recorded:
    """A real clip at a reduced size: the frames in which its object is seen, taken apart so that it can be played otherwise."""

    def __init__(self, path, longest=480, first=0, last=None, every=1):
        video = read_video(path)
        frames = reduced(video.frames[first:last:every], longest)
        self.times = video.timestamps[first:last:every]
        track = track_object(frames, self.times)
        seen = np.flatnonzero(track.seen)
        start, stop = int(seen[0]), int(seen[-1]) + 1
        self.frames, self.times = frames[start:stop], self.times[start:stop] - self.times[start]
        self.seen = track.seen[start:stop]
        known = np.flatnonzero(self.seen)
        self.path = CubicSpline(known, track.positions[seen])(np.arange(stop - start))
        still = self.frames
        if track.camera.verdict == "compensated":
            images = stabilised(self.frames.permute(0, 2, 3, 1).contiguous().numpy(), track.camera.transforms[start:stop])
            still = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.scene = taken_apart(still, np.nanmedian(track.boxes[start:stop, 2:], axis=0), self.path)

    def played(self, path=None, opacity=None, seed=0):
        """Frames of the object along a path (T, 2) [px], its own by default, with the noise of a camera."""
        path = self.path if path is None else path
        trajectory = torch.from_numpy(np.array(path)).float()[None, :, None]
        shown = torch.ones(len(path)) if opacity is None else torch.as_tensor(opacity).float()
        scene = self.scene.with_(trajectory=trajectory, opacity=shown[None, :, None])
        drawn = []
        for k in range(len(path)):  # one frame at a time: whole clips at once take gigabytes
            part = Sprites(
                scene.background,
                scene.texture[:, k : k + 1],
                scene.alpha[:, k : k + 1],
                scene.trajectory[:, k : k + 1],
                scene.scale[:, k : k + 1],
                scene.opacity[:, k : k + 1],
                scene.noise,
            )
            layers, covers = part._layers()
            cover = covers[:, :, 0, None]
            drawn.append((part.background[:, None] * (1 - cover) + layers[:, :, 0] * cover)[0, 0])
        noise = 1.5 * torch.randn(len(path), 3, *scene.background.shape[-2:], generator=torch.Generator().manual_seed(seed))
        return (torch.stack(drawn) * 255 + noise).round().clamp(0, 255).to(torch.uint8)

    def retimed(self, at):
        """The path at other (fractional) frames of the clip, kept within it."""
        spline = CubicSpline(np.arange(len(self.path)), self.path)
        return spline(np.clip(at, 0, len(self.path) - 1))


def taken_apart(frames, box, path):
    """Background and per-frame patches of an ellipse a little larger than the object's box."""
    count, height, width = len(frames), *frames.shape[2:]
    masks = torch.zeros(count, 1, height, width)
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    size = box * 0.65 + 1
    for k in range(count):
        x, y = path[k]
        off = ((xs - x) / size[0]) ** 2 + ((ys - y) / size[1]) ** 2
        masks[k, 0] = torch.sigmoid(6 * (1 - off))
    return cut(frames[None].float() / 255, masks[None], torch.from_numpy(path).float()[None, :, None], margin=2)


def broken(clip: Recorded, kind: str, share: float = 0.5):
    """Frames of the clip with one thing broken, by default in its middle."""
    count = len(clip.path)
    middle, k, path = int(count * share), np.arange(len(clip.path)), clip.path
    velocity = path[middle] - path[middle - 1]
    if kind == "floats":
        later = np.maximum(k - middle, 0)[:, None]
        return clip.played(np.where(later > 0, path[middle] + later * velocity, path))
    if kind == "jitters":
        size = max(1.0, 0.25 * float(np.linalg.norm(np.diff(path, axis=0), axis=1).mean()))
        return clip.played(path + np.random.default_rng(0).normal(0, size, path.shape))
    if kind == "vanishes":
        return clip.played(opacity=(k < middle).astype(float))
    if kind == "skips time":
        return clip.played(clip.retimed(np.where(k < middle, k, k + 3)[: count - 3])[: count - 3])
    if kind == "changes speed":
        at = np.where(k < middle, k, middle + 1.6 * (k - middle))
        return clip.played(clip.retimed(at[at < count]))
    if kind == "jumps":
        side = np.array([-velocity[1], velocity[0]]) / max(float(np.linalg.norm(velocity)), 1e-9)
        far = max(2 * float(np.linalg.norm(velocity)), 6.0)
        inwards = np.sign((np.array(clip.frames.shape[:1:-1]) / 2 - path[middle]) @ side) or 1.0
        return clip.played(path + far * inwards * side * (k >= middle)[:, None])
    if kind == "stops dead":
        return clip.played(path[np.minimum(k, middle)])
    if kind == "runs backwards":
        return clip.played(path[::-1])
    return clip.played()
