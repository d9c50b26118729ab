"""Does `visviva evaluate` put a sound recording before its broken versions, and say why? Drawn films, and real recordings.

    python benchmarks/recordings.py --scenes 2 --output benchmarks/results/recordings.json

Drawn scenes (`drawn_recordings`): seeds 0.. are the development half, on which thresholds were chosen; seeds 1000.. the
held-out half. Of each scene the unbroken film and one film per break are measured, without a scale; then the unbroken ones with
a scale that is off by 2 % (one standard deviation), for the coverage of g; then motions that only look ballistic, with a ball
of known size. Real recordings (``$VISVIVA_REAL``, default ``../shared/real``) are taken apart and played again.

``ranks``: the unbroken film scores higher (a tie counts half; a film in which nothing can be tracked ranks last). ``named``:
one of the three heaviest findings is of a kind that names the break rightly (`drawn_recordings.BREAKS`). Intervals: 95 %,
bootstrap over scenes for totals, Wilson for single breaks.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn_recordings import BREAKS, DECOYS, KINDS, broken, decoy, draw, film
from scipy.stats import binomtest

from visviva.eval.recording import Recording, Settings, measure_frames, measure_recording
from visviva.eval.run import provenance, write_json

sys.path.append(str(Path(__file__).parents[1] / "tests" / "eval"))
FIRST = {"development": 0, "held out": 1000}
REAL = {
    "projectile": ("bmc_projectile.mp4", {"every": 2, "last": 104}),
    "tennis": ("tennis_throw_luca.mp4", {}),
    "ball up": ("ball_up_trflorian.mp4", {"longest": 640}),
    "pendulum": ("pendulum_necrosskull.mp4", {"last": 130}),
}
REPLAYED = (
    "freeze",
    "skip",
    "teleport",
    "slow section",
    "speed up",
    "backwards",
    "float",
    "hover",
    "vanish",
    "blink",
    "jitter",
    "wobble",
)


Rows = dict[str, dict[str, Any]]


def row(result: Recording) -> dict[str, Any]:
    """Return what is kept of one measured film."""
    gravity, verdict = result.gravity, result.verdict
    return {
        "score": None if verdict is None else round(verdict.score, 4),
        "found": [] if verdict is None else [f.name for f in verdict.findings],
        "why": result.reason if verdict is None else verdict.sentence,
        "kind": result.kind,
        "g": None if gravity is None else [round(gravity.low, 3), round(gravity.value, 3), round(gravity.high, 3)],
    }


def measured(half: str, scenes: int, films: Path, keep: Callable[[Rows], None]) -> Rows:
    """Draw (where they are not there yet) and measure all films of a half; what there is so far is kept after each break."""
    rows: Rows = {}
    settings = Settings(laws=False)
    for seed in range(FIRST[half], FIRST[half] + scenes):
        drawn = {kind: draw(kind, seed) for kind in KINDS}
        for name in ("", *BREAKS):
            for kind, scene in drawn.items():
                version = broken(scene, name)
                if version is not None:
                    path = films / f"{kind}-{seed}-{name or 'own'}.mp4".replace(" ", "_")
                    film(path, scene, version)
                    rows[f"{kind} {seed}/{name or 'own'}"] = row(measure_recording(path, settings))
            keep(rows)
        for kind in ("fall", "throw", "bounce"):
            error = 0.02 * float(np.random.default_rng([seed, KINDS.index(kind)]).normal())
            scaled = Settings(metres_per_pixel=(1 + error) / drawn[kind].scale, scale_error=0.02, laws=False)
            rows[f"{kind} {seed}/scaled"] = row(measure_recording(films / f"{kind}-{seed}-own.mp4", scaled))
        for i, name in enumerate(DECOYS):
            scene, version = decoy(name, seed)
            path = films / f"decoy-{i}-{seed}.mp4"
            film(path, scene, version)
            rows[f"decoy {seed}/{name}"] = row(measure_recording(path, Settings(object_size=0.067, laws=False)))
        keep(rows)
        print(half, seed, len(rows), flush=True)
    return rows


def replayed(folder: Path, names: list[str]) -> Rows:
    """Measure the real recordings, taken apart and played again, whole and broken."""
    from broken_recordings import Recorded

    rows: Rows = {}
    for name in names:
        file, options = REAL[name]
        clip = Recorded(folder / "video" / file, **options)
        rows[f"{name}/own"] = judged(clip, clip.played())
        rows[f"{name}/as filmed"] = judged(clip, clip.frames)
        for kind in REPLAYED:
            rows[f"{name}/{kind}"] = judged(clip, version(clip, kind))
        print(name, flush=True)
    return rows


def judged(clip: Any, frames: torch.Tensor) -> dict[str, Any]:
    """Measure frames with the clip's clock."""
    step = float(clip.times[1] - clip.times[0])
    return row(measure_frames(frames, torch.arange(len(frames), dtype=torch.float64) * step, Settings(laws=False)))


def version(clip: Any, kind: str) -> torch.Tensor:
    """Return frames of a real clip with one thing broken in its middle."""
    path, count = clip.path, len(clip.path)
    m, k = int(0.45 * count), np.arange(count)
    velocity = path[m] - path[m - 1]
    width = float(np.median(np.ptp(path, axis=0)))
    later = max(3, round(0.1 / float(clip.times[1] - clip.times[0])))
    side = np.array([-velocity[1], velocity[0]]) / max(float(np.linalg.norm(velocity)), 1e-9)
    random = np.random.default_rng(0)
    size = max(1.0, 0.01 * width)
    at = {
        "freeze": np.where(k < m, k, np.maximum(m, k - later)),
        "skip": np.where(k < m, k, k + later)[: count - later],
        "slow section": np.where(k < m, k, np.where(k < m + 10, m + 0.5 * (k - m), k - 5)),
        "speed up": m + np.where(k < m, k - m, 1.7 * (k - m)),
        "backwards": k[::-1],
        "hover": np.minimum(k, m),
    }
    if kind in at:
        return clip.played(clip.retimed(at[kind][at[kind] < count]))
    if kind == "teleport":
        return clip.played(path + 0.12 * width * side * (k >= m)[:, None])
    if kind == "float":
        return clip.played(np.where((k > m)[:, None], path[m] + (k - m)[:, None] * velocity, path))
    if kind == "vanish":
        return clip.played(opacity=(k < m).astype(float))
    if kind == "blink":
        return clip.played(opacity=((k < m) | (k >= m + max(4, later))).astype(float))
    if kind == "jitter":
        return clip.played(path + random.normal(0, 2 * size, path.shape))
    beat = 2 * np.pi * 5 * float(clip.times[1] - clip.times[0])
    return clip.played(path + 4 * size * np.sin(beat * k)[:, None] * side)


def summary(rows: Rows, seed: int = 0) -> dict[str, Any]:
    """Return how often the unbroken film ranks first and the break is named, in total and by break, with a confusion table."""
    by_break: dict[str, list[tuple[str, float, bool]]] = defaultdict(list)
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for name, found in rows.items():
        scene, kind = name.rsplit("/", 1)
        if kind not in BREAKS:
            continue
        own, score = (-1.0 if r["score"] is None else r["score"] for r in (rows[f"{scene}/own"], found))
        named = bool(set(found["found"][:3]) & BREAKS[kind])
        by_break[kind].append((scene, 0.5 + 0.5 * float(np.sign(own - score)), named))
        confusion[kind][found["found"][0] if found["found"] else "untracked" if found["score"] is None else "nothing"] += 1
    owns = [r for n, r in rows.items() if n.endswith("/own")]
    return {
        "scenes": len(owns),
        "ranks": _total(by_break, 1, seed),
        "named": _total(by_break, 2, seed),
        "sound_films_without_finding": _share(
            sum(set(r["found"]) <= {"is struck"} and r["score"] is not None for r in owns), len(owns)
        ),
        "by_break": {
            kind: {
                "ranks": _share(sum(r for _, r, _ in found), len(found)),
                "named": _share(sum(n for _, _, n in found), len(found)),
                "heaviest finding": dict(confusion[kind].most_common()),
            }
            for kind, found in by_break.items()
        },
    }


def _total(by_break: dict[str, list[tuple[str, float, bool]]], which: int, seed: int) -> dict[str, float]:
    scenes: dict[str, list[float]] = defaultdict(list)
    for found in by_break.values():
        for one in found:
            scenes[one[0]].append(float(one[which]))
    if not scenes:
        return _share(0, 0)
    groups, random = list(scenes.values()), np.random.default_rng(seed)
    sums, counts = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    picked = random.integers(len(groups), size=(4000, len(groups)))
    means = sums[picked].sum(1) / counts[picked].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(sums.sum() / counts.sum()), "low": float(low), "high": float(high), "films": int(counts.sum())}


def _share(hits: float, count: int) -> dict[str, float]:
    if not count:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "films": 0}
    interval = binomtest(int(hits), count).proportion_ci(method="wilson")
    return {"value": hits / count, "low": float(interval.low), "high": float(interval.high), "films": count}


def gravities(rows: Rows) -> dict[str, Any]:
    """Return how often the interval of g holds 9.81 where there is one, and what was made of motions that are no fall."""
    scaled = [r["g"] for n, r in rows.items() if n.endswith("/scaled") and r["g"] is not None]
    fakes = {n: r for n, r in rows.items() if n.startswith("decoy")}
    passed = [n for n, r in fakes.items() if r["g"] is not None and not r["found"]]
    return {
        "coverage": _share(sum(g[0] <= 9.81 <= g[2] for g in scaled), len(scaled)),
        "half_width": float(np.median([(g[2] - g[0]) / 2 / g[1] for g in scaled])) if scaled else None,
        "only_looks_ballistic": _share(len(fakes) - len(passed), len(fakes)),
        "passed": passed,
    }


def main() -> None:
    """Measure, summarise, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=2, help="scenes of each kind in each half")
    parser.add_argument("--halves", nargs="*", default=list(FIRST), choices=list(FIRST))
    parser.add_argument("--real", nargs="*", default=list(REAL), choices=list(REAL), help="real recordings to play again")
    parser.add_argument("--films", type=Path, help="where films are kept; they are drawn into a temporary folder otherwise")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recordings.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, content = time.perf_counter(), {"provenance": provenance(), "breaks": {k: sorted(v) for k, v in BREAKS.items()}}
    with tempfile.TemporaryDirectory() as temporary:
        for half in options.halves:
            films = (options.films or Path(temporary)) / half.replace(" ", "-")
            films.mkdir(parents=True, exist_ok=True)

            def keep(rows: Rows, half: str = half) -> None:
                content[half] = summary(rows) | gravities(rows) | {"films": rows}
                write_json(options.output, content)

            measured(half, options.scenes, films, keep)
    real = Path(os.environ.get("VISVIVA_REAL", "../shared/real"))
    if options.real and (real / "video").is_dir():
        rows = replayed(real, options.real)
        content["real"] = summary(rows) | {"films": rows}
    content["seconds"] = time.perf_counter() - start
    write_json(options.output, content)
    for half in (*FIRST, "real"):
        if half in content:
            ranks, named = content[half]["ranks"], content[half]["named"]
            print(f"{half}: ranks {ranks['value']:.2f} ({ranks['low']:.2f}-{ranks['high']:.2f}), ", end="")
            print(f"named {named['value']:.2f} ({named['low']:.2f}-{named['high']:.2f}), {ranks['films']} films")


if __name__ == "__main__":
    main()
