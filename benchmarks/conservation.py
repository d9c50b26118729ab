"""What tracking noise and a kick cost the conservation scores (after Morpheus): throws, with white noise added to the track.

    python benchmarks/conservation.py --output benchmarks/results/conservation.json

Throws of 40 frames at 30 frames per second in an image 480 px high, start and speed drawn at random; mean and 95 % interval
(bootstrap over throws) of both scores at each noise, and of throws whose speed grows by 20 % in the middle.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from visviva.eval.benchmarks.conservation import conservation
from visviva.eval.run import provenance, write_json
from visviva.eval.statistics import bootstrap_mean

HEIGHT, FRAMES, FPS = 480, 40, 30.0
NOISES = (0.0, 0.1, 0.3, 1.0)


def throw(random: np.random.Generator, kick: float = 0.0) -> np.ndarray:
    """A parabola through the image, (T, 2) [px], y down, whose velocity grows by the share ``kick`` in the middle."""
    times, half = np.arange(FRAMES)[:, None] / FPS, FRAMES // 2
    velocity, pull = np.array([random.uniform(100, 300), -random.uniform(200, 400)]), np.array([0.0, 500.0])
    path = np.array([20.0, 300.0]) + velocity * times + pull / 2 * times**2
    path[half:] += kick * (velocity + pull * times[half]) * (times[half:] - times[half])
    return path


def main() -> None:
    """Score the throws at every noise and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/conservation.json")
    options.add_argument("--throws", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    times = np.arange(FRAMES) / FPS
    rows: dict[str, dict[str, Any]] = {}
    for noise, kick in (*((noise, 0.0) for noise in NOISES), (0.0, 0.2)):
        random = np.random.default_rng(given.seed)
        tracks = (throw(random, kick) + noise * random.standard_normal((FRAMES, 2)) for _ in range(given.throws))
        found = [conservation("free_flight", track, times, HEIGHT) for track in tracks]
        told = f"noise {noise:g} px" if not kick else f"kick of {kick:.0%}"
        rows[told] = {}
        for name in ("dynamical", "invariance"):
            values = [getattr(score, name) for score in found]
            mean = bootstrap_mean(values, seed=given.seed)
            rows[told][name] = {"mean": round(mean.value, 4), "low": round(mean.low, 4), "high": round(mean.high, 4)}
            rows[told][name]["range"] = [round(min(values), 4), round(max(values), 4)]
        print(told, rows[told], flush=True)
    command = f"python benchmarks/conservation.py --throws {given.throws} --seed {given.seed}"
    write_json(Path(given.output), {"command": command, "made_with": provenance(), "throws": rows})


if __name__ == "__main__":
    main()
