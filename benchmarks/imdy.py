"""Learned inverse dynamics (ImDyS) on simulated actions it has not seen, against predicting the mean and the analytic way.

    python benchmarks/imdy.py --out benchmarks/results/imdy.json

Errors of torques (N m/kg) with intervals over clips; what permuting, dropping and choosing other markers changes; next markers
of the forward net with true and shuffled torques; and learned against analytic torques when joints are noisy. The analytic way
turns noisy joints into rotations (`visviva.physics.bodies.posing`, twist is not seen in joints), fits accelerations over
windows and lets points near the floor push; the best of several windows, chosen with the truth at hand, stands for it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.data.motions.humanml3d import PARENTS
from visviva.data.motions.motion import forward_kinematics
from visviva.eval.motion.labels import labels, person
from visviva.eval.run import provenance
from visviva.eval.statistics import Interval, bootstrap, paired_bootstrap
from visviva.models.imdy import FPS, PAST, ImDy, windows
from visviva.physics.bodies.posing import locals_of, posed
from visviva.pipelines.pretrain.imdy_clips import RATE, Clips, clips

NOISE = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
WINDOWS = (3, 5, 7, 9, 11, 15, 21)
EDGE = 10
"""Frames at both ends that the longest window has no answer for: of noise, all are judged between them."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imdy")
    parser.add_argument("--clips", type=int, default=6, help="of each action")
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, test = ImDy.load(given.model), clips(given.clips, given.seed)
    mean = clips(given.clips, given.seed + 1).torque.flatten(0, 1).mean(0)
    result: dict[str, Any] = {
        "settings": {"clips": given.clips, "seed": given.seed},
        "against_the_mean": against_mean(model, test, mean),
        "markers": markers(model, test),
        "forward_net": forward(model, test),
        "noise": [noisy(model, test, level) for level in NOISE],
        "made_with": provenance(),
    }
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def torque_errors(model: ImDy, test: Clips, seen: Tensor, inner: slice = slice(None)) -> Tensor:
    """Return each clip's mean error per joint (N,) [N m/kg] with these markers, over all windows or inner ones."""
    with torch.no_grad():
        found = torch.cat([model(part, FPS).torque for part in seen.split(16)])
    true = test.torque[:, PAST : PAST + found.shape[1]]
    return (found - true)[:, inner].norm(dim=-1).mean((1, 2))


def against_mean(model: ImDy, test: Clips, mean: Tensor) -> dict[str, Any]:
    """Return the ratio of errors to those of who predicts the mean, over all and by action."""
    own = torque_errors(model, test, test.markers[:, :, :22])
    frames = slice(PAST, PAST + len(test.markers[0]) - 5)
    rival = (mean - test.torque[:, frames]).norm(dim=-1).mean((1, 2))
    a, b = own.numpy(), rival.numpy()
    rows = {}
    for name in dict.fromkeys(test.names):
        mine = [k for k, other in enumerate(test.names) if other == name]
        rows[name] = [float(own[mine].mean()), float(rival[mine].mean())]
    ratio = bootstrap(lambda w: (w @ a) / (w @ b), len(a))
    return {"mpje": float(own.mean()), "mpje_of_mean": float(rival.mean()), "share": told(ratio), "by_action": rows}


def markers(model: ImDy, test: Clips) -> dict[str, Any]:
    """Return errors with permuted, fewer and other markers, and how much a permutation changes the torques [N m/kg]."""
    random = torch.Generator().manual_seed(0)
    joints = test.markers[:, :, :22]
    order = torch.randperm(22, generator=random)
    with torch.no_grad():
        change = model(joints[:8], FPS).torque - model(joints[:8, :, order], FPS).torque
    rows = {"22 joints": joints, "20 of the joints": joints[:, :, order[:20]], "17 of the joints": joints[:, :, order[:17]]}
    for count in (22, 40, 64, 96):
        rows[f"{count} of the pool"] = test.markers[:, :, torch.randperm(96, generator=random)[:count]]
    found = {name: float(torque_errors(model, test, seen).mean()) for name, seen in rows.items()}
    return {"largest_change_by_permuting": float(change.abs().max()), "mpje": found}


def forward(model: ImDy, test: Clips) -> dict[str, Any]:
    """Return errors of the next markers [mm] with true and shuffled torques (ground forces true), paired over clips."""
    if model.forward is None:
        return {}
    seen = windows(test.markers[:, :, :22])
    count, length = seen.shape[:2]
    at = torch.cartesian_prod(torch.arange(count), torch.arange(PAST, PAST + length))
    torque, force = test.truth(at)
    torque = torque / model.inverse.unit[:, None]
    other = torch.randperm(len(at), generator=torch.Generator().manual_seed(0))
    flat, errors = seen.flatten(0, 1), {}
    for name, loads in (
        ("true", (torque, force)),
        ("shuffled", (torque[other], force)),
        ("both", (torque[other], force[other])),
    ):
        with torch.no_grad():
            rows = [
                (model.forward(flat[k], *(x[k] for x in loads)) - flat[k, 3]).norm(dim=-1).mean(1)
                for k in torch.arange(len(at)).split(1024)
            ]
        errors[name] = 1000 * torch.cat(rows).unflatten(0, (count, length)).mean(1)
    steady = 1000 * (2 * flat[:, 2] - flat[:, 1] - flat[:, 3]).norm(dim=-1).mean(1).unflatten(0, (count, length)).mean(1)
    better = {
        name: told(paired_bootstrap(errors[name].numpy(), errors["true"].numpy()).improvement) for name in ("shuffled", "both")
    }
    means = {name: float(x.mean()) for name, x in errors.items()}
    return {"mm": means | {"constant velocity": float(steady.mean())}, "true_better_by": better}


def noisy(model: ImDy, test: Clips, level: float) -> dict[str, Any]:
    """Return both ways' errors for joints with independent noise of this standard deviation [m]."""
    random = torch.Generator().manual_seed(int(1e6 * level))
    joints = test.markers[:, :, :22]
    shaken = joints + level * torch.randn(joints.shape, generator=random)
    learned = torque_errors(model, test, shaken, slice(EDGE - PAST, joints.shape[1] - EDGE - PAST))
    local = test.rotations[:, 2:-2:RATE]  # of the frames that were labelled: fits of five frames lose two at both ends
    turns = forward_kinematics(local, torch.zeros(22, 3), PARENTS)[1][:, :, 1:]
    found = {window: analytic(test, shaken, level, window, turns) for window in WINDOWS}
    best = min(found, key=lambda window: float(found[window].mean()))
    compared = paired_bootstrap(found[best].numpy(), learned.numpy())
    return {
        "noise_mm": 1000 * level,
        "learned": float(learned.mean()),
        "analytic": {str(window): float(x.mean()) for window, x in found.items()},
        "best_window": best,
        "learned_better_by": told(compared.improvement),
    }


def analytic(test: Clips, joints: Tensor, level: float, window: int, turns: Tensor) -> Tensor:
    """Return each clip's mean error (N,) of torques from noisy joints [N m/kg], compared in the world."""
    body, _ = person()
    rest = torch.zeros(22, 3)
    for link, parent in list(enumerate(PARENTS))[1:]:
        rest[link] = rest[parent] + body.offset[link].float()
    world = posed(PARENTS, rest, joints)
    local = locals_of(PARENTS, world)
    found = labels(joints, local, test.stature, FPS, window, low=0.012 + 3 * level, slow=0.3 + 3 * level * FPS)
    frames = found.frames
    kept = range(EDGE, joints.shape[1] - EDGE)
    own = found.torque[:, kept.start - frames.start : kept.stop - frames.start].float()
    true = test.torque[:, kept.start : kept.stop]
    there = (turns[:, kept.start : kept.stop] @ true[..., None])[..., 0]
    said = (world[:, kept.start : kept.stop, 1:] @ own[..., None])[..., 0]
    return (said - there).norm(dim=-1).mean((1, 2))


def told(interval: Interval) -> list[float]:
    """Value, low and high."""
    return [float(interval.value), float(interval.low), float(interval.high)]


if __name__ == "__main__":
    main()
