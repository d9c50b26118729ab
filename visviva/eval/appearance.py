"""Whether a tracked object is there and looks like itself throughout: it vanishes, has a double, changes size or colour.

Sizes are compared with a smooth course in time (a straight line of the logarithm: motion in depth), over the area (which blur
leaves as it is) and the chord across the longest axis together; where the two part, the shape changes (an object that tumbles
in depth does so too). Colours are those of the core, against their median. Thresholds are ours.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from visviva.eval.finding import Finding
from visviva.eval.track import UNTOLD, Track

GROWN = math.log(1.2)
"""Tolerated departure of the object's linear size from a smooth course (logarithm)."""
TINTED = 45.0
"""Tolerated departure of the object's colour [grey values]."""
OTHER = 0.25
"""Tolerated share of the background that looks otherwise late in the clip than early."""
BULGED = 0.16
"""Tolerated departure of the chord across the object's longest axis from the root of its area (logarithm)."""
BLURRED = 0.9
"""Way in a frame [widths] up to which an object is sharp enough for its colour and shape to be judged; thrice for its size."""
UNFOLLOWED = 1 / 3
"""Tolerated share of a clip in which the object is there, or should be, and cannot be followed."""
FEWEST = 12
"""Frames that a course of size or colour takes to be judged."""


def appearance(track: Track) -> list[Finding]:
    """Return what speaks against the object's presence and look.

    Example::

        [f.sentence for f in appearance(track)]
    """
    found = [*_gaps(track), *_lost(track)]
    if track.changed <= OTHER:  # before a background that changes, sizes cannot be told
        found += [*_size(track), *(_colour(track) or _shape(track))]
    if track.double is not None:
        first, last = track.double
        words = f"a second object like it appears out of nothing at frame {first} (seen up to frame {last})"
        found.append(Finding("duplicates", 1.0, first, words))
    if track.changed > OTHER:
        words = f"{track.changed:.0%} of the background turns into something else during the clip"
        found.append(Finding("background changes", track.changed / OTHER, None, words))
    return found


def _gaps(track: Track, longest: int = 3) -> list[Finding]:
    """Find where a whole object is gone from one frame to the next, and back again later: nothing hides so fast."""
    seen = np.flatnonzero(track.seen)
    found = [_vanished(a, b, longest) for a, b in track.gone]
    for a, b in zip(seen[:-1].tolist(), seen[1:].tolist(), strict=True):
        if b - a - 1 < longest or any(k in track.cut for k in range(a + 1, b)) or any(a < d and c < b for c, d in track.gone):
            continue
        near = seen[(seen >= a - 3) & (seen <= a)]
        speed = float(np.linalg.norm(track.positions[a] - track.positions[near[0]])) / max(1, a - near[0])
        if speed < 0.6 * float(np.nanmedian(track.width)):
            found.append(_vanished(a, b, longest))
    return found


def _vanished(before: int, after: int, longest: int) -> Finding:
    words = f"the object is gone after frame {before} and back at frame {after}"
    return Finding("vanishes", (after - before - 1) / longest, before, words)


def _lost(track: Track) -> list[Finding]:
    """Find that much of a clip could not be followed: frames of the path that were cut, but for those at the border, and those
    before or after it if it does not end at the border, with the clip, at rest or in a hand."""
    seen, count = np.flatnonzero(track.seen), len(track.times)
    gaps = [k for k in range(int(seen[0]), int(seen[-1]) + 1) if k not in track.cut and not track.seen[k]]
    cut = [k for k, why in track.cut.items() if why == UNTOLD or "changes size" in why]
    begins, ends = (set(range(seen[0])) - set(track.cut), set(range(seen[-1] + 1, count)) - set(track.cut))
    beyond = (len(begins) if track.ends[0] == "" else 0) + (len(ends) if track.ends[1] == "" else 0)
    share = (len(gaps) + len(cut) + beyond) / count
    if share <= UNFOLLOWED:
        return []
    words = f"the object could not be followed in {share:.0%} of the clip, of which nothing is known"
    return [Finding("is lost", share / UNFOLLOWED, None, words)]


def _inside(track: Track, blurred: float = BLURRED) -> NDArray[np.int64]:
    """Return the frames in which the whole object is seen away from the border, from a hand, and from what it strikes.

    Left out are two frames at an end of the path that is not the clip's, and those in which the object moves by more than
    ``blurred`` of its width: its core and its shape are blurred then.
    """
    width, height = track.size
    x, y, w, h = track.boxes.T
    whole = np.isfinite(track.width) & np.isfinite(track.area) & (x > 2) & (y > 2) & (x + w < width - 2) & (y + h < height - 2)
    centres = np.stack([x + w / 2, y + h / 2], axis=1)
    step = np.linalg.norm(np.diff(centres, axis=0, prepend=centres[:1]), axis=1)
    whole &= ~(step > blurred * float(np.nanmedian(track.width)))
    frames = np.flatnonzero(whole)
    return frames[(0 if track.ends[0] == "clip" else 2) : len(frames) - (0 if track.ends[1] == "clip" else 2)]


def _size(track: Track) -> list[Finding]:
    """Find a course of area and chord together: blur of motion makes the area larger, but no chord across the motion."""
    frames = _inside(track, 3 * BLURRED)
    if len(frames) < FEWEST:
        return []
    t = track.times[frames] - track.times[frames].mean()
    sizes = np.stack([np.log(track.area[frames]) / 2, np.log(track.width[frames])])
    off = np.stack([_smoothed(s - _line(t, s)) for s in sizes])
    steady = np.where(off[0] * off[1] > 0, np.sign(off[0]) * np.abs(off).min(0), 0.0)
    bump, dip = (sign * _prominence(sign * sizes).min(0).clip(min=0) for sign in (1, -1))
    both = max((steady, bump, dip), key=lambda course: float(np.abs(course).max()))
    worst = int(np.argmax(np.abs(both)))
    if abs(both[worst]) <= GROWN:
        return []
    words = f"the object changes size by {math.exp(both[worst]) - 1:+.0%} around frame {frames[worst]}"
    return [Finding("changes size", float(abs(both[worst])) / GROWN, int(frames[worst]), words)]


def _prominence(courses: NDArray) -> NDArray[np.float64]:
    """Return by how much each sample stands above the lowest before it and the lowest after it, whichever is less."""
    smooth = np.stack([_smoothed(course) for course in courses])
    before, after = np.minimum.accumulate(smooth, 1), np.minimum.accumulate(smooth[:, ::-1], 1)[:, ::-1]
    return smooth - np.maximum(before, after)


def _colour(track: Track) -> list[Finding]:
    if track.colour is None:
        return []
    other = [k for k, why in track.cut.items() if why == UNTOLD and np.isfinite(track.colour[k]).all()]
    frames = np.union1d(_inside(track), np.array(other, dtype=np.int64))
    if len(frames) < FEWEST:
        return []
    colours = track.colour[frames]
    off = np.abs(np.stack([_smoothed(c - np.median(c)) for c in colours.T])).max(0)
    worst = int(np.argmax(off))
    if off[worst] <= TINTED:
        return []
    words = f"the object changes colour, by {off[worst]:.0f} grey values of 255 at frame {frames[worst]}"
    return [Finding("changes look", float(off[worst]) / TINTED, int(frames[worst]), words)]


def _shape(track: Track) -> list[Finding]:
    """Find a change of shape: a ball keeps its chord, a rod that turns in the image its thickness."""
    frames = _inside(track)
    if len(frames) < FEWEST:
        return []
    t = track.times[frames] - track.times[frames].mean()
    share = np.log(track.width[frames]) - np.log(track.area[frames]) / 2
    off = np.abs(_smoothed(share - _line(t, share)))
    worst = int(np.argmax(off))
    if off[worst] <= BULGED:
        return []
    words = f"the object changes shape, its width by {math.exp(off[worst]) - 1:.0%} against its area at frame {frames[worst]}"
    return [Finding("changes look", float(off[worst]) / BULGED, int(frames[worst]), words)]


def _line(t: NDArray, values: NDArray) -> NDArray[np.float64]:
    """Return the robust straight line through values over time (iteratively reweighted)."""
    design = np.stack([np.ones_like(t), t], axis=1)
    weight = np.ones(len(t))
    fitted = values
    for _ in range(8):
        solution = np.linalg.lstsq(design * weight[:, None], values * weight, rcond=None)[0]
        fitted = design @ solution
        off = np.abs(values - fitted)
        weight = 1 / np.sqrt(1 + (off / (2 * np.median(off) + 1e-6)) ** 2)
    return fitted


def _smoothed(values: NDArray) -> NDArray[np.float64]:
    """Return the running median of three."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
