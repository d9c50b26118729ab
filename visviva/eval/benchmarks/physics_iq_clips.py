"""Running Physics-IQ on files: generated clips named by test id against the real takes of the benchmark's folder.

The benchmark's own names are used: ``0001_testing-videos_30FPS_perspective-left_take-1_NAME.mp4`` for real clips, anywhere
below the reference folder, and ``0001_ANYTHING.mp4`` for generated ones, where 0001 is the id of the take-1 clip. A generated
clip that is missing or cannot be used counts as a black, still clip of the right length and is listed, so that leaving out a
hard scene never helps; the score is the published one where ``used`` equals ``asked``.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.eval.benchmarks import physics_iq
from visviva.eval.benchmarks.inputs import Inputs, folder
from visviva.eval.benchmarks.physics_iq import SECONDS, Take, View, agreement, resampled, take, totals
from visviva.eval.benchmarks.result import EXACT, ClipRow, Result, with_interval
from visviva.eval.score import Score
from visviva.eval.statistics import bootstrap

REAL = re.compile(r"(\d{4})_(?:testing-videos_)?(?:(\d+)FPS_)?(perspective-[a-z]+)_take-([12])_(.+)")
VERSION = physics_iq.VERSION
STANDING = EXACT
NEEDS = "--reference: the benchmark's folder of real clips (both takes); clips named by test id, 5 s each"
NOTE = {
    "spatiotemporal": "mean IoU of motion masks per frame",
    "spatial": "IoU of where anything ever moves",
    "weighted": "weighted IoU of how much moves where",
    "mse": "mean squared error of frames in [0, 1]",
}


@dataclass(frozen=True)
class Scene:
    """One view of one scenario: its test id and the real clips of each take, by frame rate."""

    id: str
    scenario: str
    view: str
    takes: dict[int, dict[int, Path]]


def scenes(reference: Path) -> list[Scene]:
    """Return the views of which both takes are in the folder, by test id.

    Raises:
        InputError: none is.
    """
    kept, _ = _scenes(reference)
    return kept


def _scenes(reference: Path) -> tuple[list[Scene], list[str]]:
    """Return the views with both takes and the names of those with one."""
    found: dict[tuple[str, str], dict[int, dict[int, Path]]] = defaultdict(lambda: {1: {}, 2: {}})
    ids: dict[tuple[str, str], str] = {}
    for path in sorted(reference.rglob("*.mp4")):
        match = REAL.fullmatch(path.stem)
        if match is None:
            continue
        number, fps, view, which, scenario = match.groups()
        found[scenario, view][int(which)][int(fps or 0)] = path
        if which == "1":
            ids[scenario, view] = number
    kept = [Scene(ids[k], k[0], k[1], takes) for k, takes in found.items() if takes[1] and takes[2]]
    if not kept:
        raise InputError(
            f"{reference}: holds no view of which both takes are there; give the folder of Physics-IQ with files like "
            "0001_testing-videos_30FPS_perspective-left_take-1_NAME.mp4"
        )
    single = [f"{scenario} {view}" for (scenario, view), takes in found.items() if not (takes[1] and takes[2])]
    return sorted(kept, key=lambda s: s.id), single


def run(inputs: Inputs) -> Result:
    """Score generated clips (`Inputs.clips`) against the benchmark's real takes (`Inputs.reference`)."""
    reference = folder(inputs.needed("reference", NEEDS), NEEDS)
    generated = _by_id([item.path for item in inputs.items()])
    known, single = _scenes(reference)
    if not generated:
        raise InputError("no clip is named by a test id of Physics-IQ (0001_ANYTHING.mp4); rename the generated clips")
    rate = _rate(generated)
    views, rows = [], []
    for scene in tqdm(known[: inputs.limit], desc="physics-iq"):
        view, row = _scored(scene, generated.get(scene.id), rate, inputs.codec)
        views.append(view)
        rows.append(row)
    unknown = sorted(set(generated) - {scene.id for scene in known})
    notes = (
        [f"no real clips of the ids {', '.join(unknown[:9])}: {len(unknown)} generated clips are left out"] if unknown else []
    )
    notes += [f"only one take of {', '.join(single[:9])}: {len(single)} views are left out"] if single else []
    return summary(views, rows, inputs, notes)


def _by_id(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the clips that are named by a test id."""
    found: dict[str, Path] = {}
    for path in paths:
        if re.match(r"\d{4}_", path.name):
            other = found.setdefault(path.name[:4], path)
            if other != path:
                raise InputError(f"two clips have the test id {path.name[:4]}: {str(other)!r} and {str(path)!r}; name one")
    return found


def _rate(generated: dict[str, Path]) -> int:
    """Return the one frame rate of the generated clips that can be read."""
    rates: dict[int, str] = {}
    for path in generated.values():
        try:
            rates[round(read_video(path, max_frames=8).fps)] = path.name
        except InputError as error:
            rates.setdefault(0, str(error))
    rates.pop(0, None) if len(rates) > 1 else None
    if len(rates) > 1:
        said = ", ".join(f"{name} at {fps}/s" for fps, name in rates.items())
        raise InputError(f"the generated clips have different frame rates ({said}); Physics-IQ compares at one, re-encode them")
    rate, said = next(iter(rates.items()))
    if not rate:
        raise InputError(said)
    return rate


def _scored(scene: Scene, path: Path | None, rate: int, codec: bool) -> tuple[View, ClipRow]:
    first = _real(scene, 1, rate)
    size = (first.shape[2] // 4, first.shape[3] // 4)
    one, two = take(first, rate, codec=codec), take(_real(scene, 2, rate), rate, size, codec=codec)
    failure = "no generated clip with this id" if path is None else ""
    clip = Take(torch.zeros_like(one.masks), torch.zeros_like(one.frames))
    if path is not None:
        try:
            clip = take(_five_seconds(path, rate), rate, size, codec=codec)
        except InputError as error:
            failure = str(error)
    view = View(scene.scenario, scene.view, agreement(one, clip), agreement(one, two))
    numbers = view.clip.numbers() | {f"{m}_takes": v for m, v in view.takes.numbers().items()}
    labels = {"view": scene.view, "real_motion": one.area}
    return view, ClipRow(scene.id, scene.scenario, numbers, clip.area, failure, labels)


def _real(scene: Scene, which: int, rate: int) -> Tensor:
    files = scene.takes[which]
    path = files.get(rate) or files[max(files)]
    video = read_video(path)
    frames = resampled(video.frames, video.fps, rate)
    return _whole(frames, rate, path)


def _five_seconds(path: Path, rate: int) -> Tensor:
    return _whole(read_video(path).frames[: SECONDS * rate], rate, path)


def _whole(frames: Tensor, rate: int, path: Path) -> Tensor:
    if len(frames) != SECONDS * rate:
        raise InputError(
            f"{path}: {len(frames)} frames at {rate}/s are not {SECONDS} s, which Physics-IQ scores; cut it, or generate more"
        )
    return frames


def summary(views: Sequence[View], rows: Sequence[ClipRow], inputs: Inputs, told: Sequence[str] = ()) -> Result:
    """Return the benchmark's result from the views' comparisons."""
    used = sum(not r.failure for r in rows)
    scenarios = len({v.scenario for v in views})
    statistics = dict(inputs.statistics)

    def interval(name: str, statistic: str, unit: str, note: str, lower: bool = False) -> Score:
        def value(weights: object) -> object:
            found = totals(views, weights, rounded=False)  # type: ignore[arg-type]
            return found.score if statistic == "score" else found.means[statistic]

        score = Score(name, float("nan"), unit, lower, used, len(rows), note=note)
        return with_interval(score, bootstrap(value, scenarios, **statistics))  # type: ignore[arg-type]

    published = float(totals(views).score[0])
    scores = [
        interval("score", "score", "0-100", "ratios to what the two real takes reach, minus excess MSE").with_(value=published)
    ]
    scores += [interval(m, m, "1", NOTE[m], m == "mse") for m in physics_iq.METRICS]
    variances = totals(views).variances
    scores += [
        Score(
            f"{m}_takes", float(variances[m][0]), "1", m == "mse", len(rows), len(rows), note="take 1 against take 2: the bar"
        )
        for m in physics_iq.METRICS
    ]
    real = sum(r.labels["real_motion"] for r in rows)
    motion = sum(r.motion for r in rows) / real if real > 0 else math.nan
    note = "share of moving pixels over that of the real clips; 0: still, 1: as much as in reality"
    scores.append(Score("motion", motion, "1", False, used, len(rows), note=note))
    compared = "through lossy video, as the published pipeline" if inputs.codec else "without a codec (--codec: as published)"
    notes = [f"masks are compared {compared}", *told]
    if used < len(rows):
        notes.append(f"{len(rows) - used} clips are missing or unusable and count as black and still: not a leaderboard score")
    return Result("physics-iq", physics_iq.VERSION, EXACT, scores, list(rows), {}, notes)
