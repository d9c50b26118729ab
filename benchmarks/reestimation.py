"""Re-estimation against its rivals on simulated and recorded motions with detector-like noise.

Two tracks. *lifted*: motions before random cameras, detected in 2D with noise, lifted to 3D; *joints*: the same noise in 3D.
Methods, all on the same clips: as they come (the lifter alone), the constant-acceleration Kalman smoother (noise, jerk, gate
tuned on training clips of the track), the learned PhysNet, the analytic projection (4 cm of noise, and the jerk that gives the
tuned smoother's ratio; nothing else is tuned), and, lifted (where the network is given smoothed poses), the analytic one after
the learned one, and the two analytic ones fused with the smoothed poses (`visviva.pipelines.motion.fuse`). Each clip is seen by
one camera or several (``--films``). Errors against the truth, intervals by paired bootstrap over clips, the films of a clip
kept together. The recordings are cut into clips of three seconds at 20 frames per second. ``--unseen`` are folders of other
recordings, which nobody looked at while methods were chosen; intervals resample their files. Results of a track that
stands in the output already are replaced, the others kept.

    python benchmarks/reestimation.py --real ../shared/real/motion --output benchmarks/results/reestimation.json
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.data.actions import ACTIONS, draw
from visviva.data.motions import HumanMotion, read_motion
from visviva.data.motions.resample import resampled
from visviva.eval.motion.dynamics import forces, skeleton
from visviva.eval.motion.errors import acceleration_error, mpjpe, pa_mpjpe
from visviva.eval.motion.ground import support_speed
from visviva.eval.run import provenance, write_json
from visviva.eval.statistics import paired_bootstrap
from visviva.models.reestimation.analytic import Priors
from visviva.models.reestimation.camera import placed
from visviva.models.reestimation.joints import NAMES, PARENTS, h36m
from visviva.models.reestimation.kalman import smoothed
from visviva.models.reestimation.reestimator import Reestimator
from visviva.pipelines.motion.fuse import reestimated
from visviva.pipelines.motion.repair import repaired
from visviva.pipelines.pretrain.detections import detected, filmed
from visviva.pipelines.pretrain.schedule import generator

FPS, FRAMES = 20.0, 60
TRACKS = ("lifted", "joints")
RECORDINGS = ("humanml3d_012314_joints.npy", "cmu_01_01.bvh", "ad_zombie.bvh", "ad_jumping.bvh")
NOISES, JERKS, GATES = (0.02, 0.04, 0.08, 0.16), (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), (None, 4.0)
METHODS = ("kalman", "learned", "fused", "analytic", "learned, then analytic")
MOST = 8
"""Clips of each recording."""
FEET = (3, 6)
NOISE, STEPS = 0.04, 40
"""Of the analytic method: how far a coordinate may be wrong [m], steps of each of its two optimizations."""


def simulated(count: int, seed: int) -> Tensor:
    """Return clips of all actions alike, (N, 60, 17, 3)."""
    names = list(ACTIONS)
    return h36m(draw([names[k % len(names)] for k in range(count)], seed, FPS, FRAMES / FPS).joints, "humanml3d")


def recorded(folder: Path, most: int, names: Sequence[str] = RECORDINGS) -> tuple[Tensor, list[str]]:
    """Return clips of the recordings and the file of each; at most ``most`` of a file, spread over it."""
    clips, files = [], []
    for name in names:
        motion = resampled(read_motion(folder / name), FPS)
        tree, joints = skeleton(motion)
        joints = h36m(joints, tree).float()
        starts = list(range(1, len(joints) - FRAMES + 1, FRAMES))
        for start in starts[:: max(1, -(-len(starts) // most))]:
            clips.append(joints[start : start + FRAMES])
            files.append(name)
    return torch.stack(clips), files


def given(track: str, clips: Tensor, model: Reestimator, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the methods are given (N, 60, 17, 3), confidences and the truth."""
    rng = generator(seed, track, 0)
    if track == "joints":
        noisy, sure = detected(clips, torch.full((len(clips),), 1.7), FPS, rng)
        return noisy, sure, clips
    film = filmed(clips, FPS, rng)
    plane = film.camera.levelled(film.image)
    poses = torch.stack([model.lift(p, c) for p, c in zip(plane, film.confidence, strict=True)])
    return placed(poses, plane, film.confidence), film.confidence, film.joints


def tuned(noisy: Tensor, sure: Tensor, true: Tensor) -> dict[str, float | None]:
    """Return the smoother's noise, jerk density, gate and use of confidence that give the least error about the hip."""
    best, found = float("inf"), {}
    for noise, jerk, gate, weigh in itertools.product(NOISES, JERKS, GATES, (True, False)):
        calm = smoothed(noisy, FPS, noise, jerk, sure.square() if weigh else None, gate)
        error = float(mpjpe(calm, true, 0).mean())
        if error < best:
            best, found = error, {"noise": noise, "jerk": jerk, "gate": gate, "weigh": float(weigh)}
    return found


def motion_of(joints: Tensor) -> HumanMotion:
    """Return joints as a motion."""
    return HumanMotion(joints.float(), NAMES, PARENTS, FPS)


def analytic(noisy: Tensor, sure: Tensor, rule: dict[str, float | None], track: str) -> Tensor:
    """Return the analytic re-estimation of one clip; lifted depth is trusted a third as much as the rest."""
    ratio = float(rule["noise"] or 0) ** 2 / float(rule["jerk"] or 1)
    spread = torch.full_like(noisy, NOISE).double()
    if track == "lifted":
        spread[..., 1] *= 3
    weigh = sure.square().clamp(min=1e-3) if rule["weigh"] else None
    priors = Priors(jerk=NOISE**2 / ratio)
    found = repaired(motion_of(noisy), noise=NOISE, spread=spread, confidence=weigh, priors=priors, steps=STEPS)
    return found.after.positions


def errors(found: Tensor, true: Tensor) -> dict[str, float]:
    """Return one clip's errors and what needs no truth."""
    about, truth = found - found[:, :1], true - true[:, :1]
    feet = found[:, list(FEET)].double()
    forced = forces(motion_of(found))
    return {
        "mpjpe": float(mpjpe(about, truth)),
        "pa_mpjpe": float(pa_mpjpe(found.double(), true.double())),
        "acceleration": float(acceleration_error(found, true)),
        "acceleration_root": float(acceleration_error(about, truth)),
        "violation": float(forced.reaction.violation.mean()),
        "support": float(support_speed(feet, FPS)),
    }


def measured(
    track: str, clips: Tensor, model: Reestimator, rule: dict[str, float | None], seed: int
) -> dict[str, list[dict[str, float]]]:
    """Return every method's errors on every clip."""
    noisy, sure, true = given(track, clips, model, seed)
    rows: dict[str, list[dict[str, float]]] = {}
    for x, c, y in zip(tqdm(noisy, desc=track), sure, true, strict=True):
        options = float(rule["noise"] or 0), float(rule["jerk"] or 0), c.square() if rule["weigh"] else None, rule["gate"]
        found = {
            "as given": x,
            "kalman": smoothed(x, FPS, *options),
            "learned": model(model.calmed(x) if track == "lifted" else x),
            "analytic": analytic(x, c, rule, track),
        }
        if track == "lifted":
            found["learned, then analytic"] = analytic(found["learned"], torch.ones_like(c), rule, track)
            found["fused"] = reestimated(motion_of(x), model, steps=STEPS).positions
        for name, joints in (found | {"truth": y}).items():
            rows.setdefault(name, []).append(errors(joints, y))
    return rows


def compared(rows: dict[str, list[dict[str, float]]], clusters: list[str]) -> dict[str, object]:
    """Return means, and paired differences of every method to the given motion, to the smoother and to the analytic one."""
    names = list(rows["truth"][0])
    table: dict[str, object] = {m: {k: sum(r[k] for r in found) / len(found) for k in names} for m, found in rows.items()}
    pairs = [(b, a) for b in ("as given", "kalman", "analytic") for a in METHODS if a != b and a in rows]
    for before, after in pairs:
        for key in names:
            one, two = ([row[key] for row in rows[m]] for m in (before, after))
            found = paired_bootstrap(one, two, clusters, metric=key)
            table[f"{after} - {before}: {key}"] = [
                found.difference.value,
                found.difference.low,
                found.difference.high,
                found.verdict,
            ]
    return table


def taken(
    track: str,
    clips: Tensor,
    model: Reestimator,
    rule: dict[str, float | None],
    seed: int,
    films: int,
    groups: list[str] | None = None,
) -> dict[str, object]:
    """Return the comparison on every clip, seen ``films`` times (by another camera, with other noise)."""
    rows = measured(track, clips.repeat(films, 1, 1, 1), model, rule, seed)
    return {"clips": len(clips), "films": films, **compared(rows, (groups or [str(k) for k in range(len(clips))]) * films)}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--unseen", type=Path, nargs="*", default=[])
    parser.add_argument("--weights", default="reestimation")
    parser.add_argument("--track", choices=TRACKS, nargs="+", default=list(TRACKS))
    parser.add_argument("--clips", type=int, default=15, help="simulated ones; 0: recordings alone")
    parser.add_argument("--films", type=int, default=1, help="how often each clip is seen: by another camera, with other noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reestimation.json"))
    given_ = parser.parse_args()
    if given_.films < 1:
        parser.error(f"--films {given_.films}; 1 or more")
    torch.set_num_threads(1)
    model = Reestimator.load(given_.weights)
    held, train = simulated(max(given_.clips, 1), 9001 + given_.seed), simulated(45, 7001)
    found: dict[str, object] = json.loads(given_.output.read_text())["results"] if given_.output.is_file() else {}
    for track in given_.track:
        rule = tuned(*given(track, train, model, 5))
        found[f"{track}: smoother"] = rule
        if given_.clips:
            found[f"{track}, simulated"] = taken(track, held, model, rule, 11 + given_.seed, given_.films)
        if given_.real:
            clips, files = recorded(given_.real, MOST)
            counts = {name: files.count(name) for name in RECORDINGS}
            found[f"{track}, recorded"] = {"files": counts, **taken(track, clips, model, rule, 21 + given_.seed, given_.films)}
        for folder in given_.unseen:
            clips, files = recorded(folder, MOST, sorted(path.name for path in folder.iterdir()))
            row = taken(track, clips, model, rule, 31 + given_.seed, given_.films, groups=files)
            found[f"{track}, {folder.name}"] = {"files": {name: files.count(name) for name in sorted(set(files))}, **row}
        found[f"{track}: made with"] = {"seed": given_.seed, **provenance()}
        write_json(given_.output, {"results": found})


if __name__ == "__main__":
    main()
