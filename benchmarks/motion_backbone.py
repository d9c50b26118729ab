"""The motion model: ArtAttention against a plain transformer, frame rates, texts, speeds, guidance and projection.

    python benchmarks/motion_backbone.py rivals --steps 1500 --seeds 3 --clips 600    # trains nine small models
    python benchmarks/motion_backbone.py model                          # measures the shipped model
    python benchmarks/motion_backbone.py model --model runs/motion/model
    python benchmarks/motion_backbone.py laws --count 1 --out benchmarks/results/motion-acceleration.json
    python benchmarks/motion_backbone.py emg --count 2 --out benchmarks/results/motion-acceleration.json

Each part is written to benchmarks/results/motion-backbone.json, or the file of --out, as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.configs.pretrain import MotionStage, PretrainRecipe
from visviva.data.actions import ACTIONS, draw
from visviva.data.motions.axes import upright
from visviva.data.motions.emg import activations, drives, emg
from visviva.data.motions.folder import facing
from visviva.eval.motion.labels import labels
from visviva.physics.motion_laws import EulerLagrange, FlightGravity, Penetration, Skating
from visviva.physics.motion_laws.body import fitted, flying, window_of
from visviva.pipelines.motion.consistency import AccelerationConsistency
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.steering import LawGuidance, Projection, verifier_of
from visviva.pipelines.pretrain.motion import build, checks, train, validate
from visviva.pipelines.pretrain.motions import simulated

OUT = Path(__file__).parent / "results" / "motion-backbone.json"
FPS = 20.0
RATES = [10.0, 12.0, 15.0, 20.0, 24.0, 30.0]
"""Frame rates of held-out windows; 12, 15 and 24 are never trained on."""
STEPS = 25
"""Denoising steps of everything that is sampled here."""


def write(name: str, found: dict[str, Any]) -> None:
    """Add a part to the results."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(OUT.read_text()) if OUT.is_file() else {}
    content[name] = {**found, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    OUT.write_text(json.dumps(content, indent=1).replace("NaN", "null") + "\n")
    print(name, json.dumps(found, indent=1), flush=True)


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half of the 95 % interval (Student's t)."""
    x = torch.tensor(values, dtype=torch.float64)
    if len(x) < 2:
        return {"mean": float(x.mean()), "half": math.nan}
    from scipy.stats import t

    return {"mean": float(x.mean()), "half": float(t.ppf(0.975, len(x) - 1) * x.std() / len(x) ** 0.5)}


# ------------------------------------------------------------------------------------------------------------------ rivals


def rivals(steps: int, seeds: int, clips: int, precision: str, nearby: bool) -> None:
    """ArtAttention (ours, and gathering from all frames as the release) and a plain transformer of one size, trained alike."""
    small = dict(width=48, layers=2, templates=32, frames=40, batch_size=16, steps=steps, clips=clips, warmup=30, nearby=nearby)
    folder = Path(tempfile.gettempdir()) / "motion-rivals"
    train_set = simulated([], clips, 900, 4.0, folder)
    held_out = simulated([], 90, 901, 4.0, folder)
    art = MotionStage(**small, attention="art", hidden=192)
    wanted = size(build(art, train_set, 0))
    widths = range(192, 1200, 4)
    hidden = min(widths, key=lambda h: abs(size_of(MotionStage(**small, attention="plain", hidden=h)) - wanted))
    plain = MotionStage(**small, attention="plain", hidden=hidden)
    stages = {"art": art, "plain": plain, "art, gathering from all": art.model_copy(update={"gather": None})}
    found: dict[str, Any] = {
        "parameters": {},
        "steps": steps,
        "clips": clips,
        "seeds": seeds,
        "precision": precision,
        "validation": {},
        "seconds": {},
    }
    losses: dict[str, list[dict[str, float]]] = {name: [] for name in stages}
    for seed in range(seeds):
        for name, stage in stages.items():
            pipeline = build(stage, train_set, seed)
            found["parameters"][name] = size(pipeline)
            never = 10**9
            recipe = PretrainRecipe(
                model="motion",
                seed=seed,
                device="cpu",
                motion=stage,
                precision=precision,
                save_every=never,
                validate_every=never,
            )
            with tempfile.TemporaryDirectory() as out:
                start = time.process_time()
                train(pipeline, recipe, train_set, held_out, Path(out), math.inf)
                found["seconds"][name] = round((time.process_time() - start) / steps, 3)
            losses[name].append(validate(pipeline, stage, checks(held_out, stage, 90)))
            asked = stage.model_copy(update={"rates": RATES, "frames": 36})
            others = validate(pipeline, asked, checks(held_out, asked, 90))
            rates_of = [others[f"validation_{r}"] for r in (10, 20, 30)]
            losses[name][-1]["spread_10_20_30"] = max(rates_of) / min(rates_of) - 1
            print(seed, name, losses[name][-1], flush=True)
        for name in stages:
            rows = losses[name]
            found["validation"][name] = {k: interval([row[k] for row in rows]) for k in rows[0]}
        for name, rival in (("plain", losses["plain"]), ("all", losses["art, gathering from all"])):
            found[f"art_over_{name}"] = interval(
                [a["validation"] / p["validation"] for a, p in zip(losses["art"], rival, strict=True)]
            )
        found["each"] = losses
        write("rivals_nearby" if nearby else "rivals", found)


def size(pipeline: MotionPipeline) -> int:
    """Parameters of the transformer."""
    return sum(p.numel() for p in pipeline.transformer.parameters())


def size_of(stage: MotionStage) -> int:
    """Parameters of a transformer that is not built."""
    from visviva.models.motion.transformer import MotionTransformer

    with torch.device("meta"):
        network = MotionTransformer(
            width=stage.width, layers=stage.layers, text_width=stage.width, attention=stage.attention,
            templates=stage.templates, experts=stage.experts, hidden=stage.hidden, nearby=stage.nearby,
        )  # fmt: skip
    return sum(p.numel() for p in network.parameters())


# ------------------------------------------------------------------------------------------------------------------- model


def rates(pipeline: MotionPipeline, folder: Path) -> None:
    """Held-out loss of the same clips at 10, 20 and 30 frames/s, and at rates never trained on."""
    held = simulated([], 150, 911, 4.0, folder)
    wanted = MotionStage(rates=RATES, frames=36)
    found = validate(pipeline, wanted, checks(held, wanted, 150))
    pipeline.transformer.eval()
    main = [found[f"validation_{r}"] for r in (10, 20, 30)]
    write("rates", {**found, "spread_10_20_30": max(main) / min(main) - 1, "clips": 150, "frames": 36})


def drawn_joints(pipeline: MotionPipeline, prompt: str, count: int, **options: Any) -> Tensor:
    """Generated joints of one text."""
    return pipeline([prompt] * count, fps=FPS, seeds=list(range(count)), steps=STEPS, **options).joints


def yaw(joints: Tensor) -> Tensor:
    """Turn to the left over the motion [rad]."""
    across = joints[:, :, 1, :2] - joints[:, :, 2, :2]
    angle = torch.atan2(across[..., 1], across[..., 0])
    step = angle.diff(dim=1)
    return torch.atan2(step.sin(), step.cos()).sum(1)


def travel(joints: Tensor) -> Tensor:
    """How far the pelvis goes ahead (x), to the left (y); motions begin facing -y, with left at +x."""
    way = joints[:, -1, 0, :2] - joints[:, 0, 0, :2]
    return torch.stack((-way[:, 1], way[:, 0]), 1)


def reach(joints: Tensor, joint: int, over: int) -> Tensor:
    """Highest that a joint comes above another [m]."""
    return (joints[:, :, joint, 2] - joints[:, :, over, 2]).amax(1)


SAYS: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "walk": ("a person walks forward", lambda x: (travel(x)[:, 0] > 0.7) & (travel(x)[:, 0] < 6), "ahead 0.7 to 6 m"),
    "run": ("a person runs forward", lambda x: travel(x)[:, 0] > 2.5, "ahead more than 2.5 m"),
    "side step": ("a person steps sideways to the left", lambda x: travel(x)[:, 1] > 0.3, "left more than 0.3 m"),
    "turn": ("a person turns around to the right", lambda x: yaw(x) < -1.2, "more than 70 degrees to the right"),
    "jump": ("a person jumps up", lambda x: flying(x).any(1) & (travel(x).norm(dim=1) < 0.5), "a flight, not going far"),
    "jump forward": ("a person jumps forward", lambda x: flying(x).any(1) & (travel(x)[:, 0] > 0.4), "a flight, ahead 0.4 m"),
    "squat": (
        "a person squats down and stands up",
        lambda x: x[:, :, 0, 2].amax(1) - x[:, :, 0, 2].amin(1) > 0.2,
        "0.2 m down",
    ),
    "wave": ("a person waves with the right hand", lambda x: reach(x, 21, 17) > reach(x, 20, 16) + 0.2, "right hand up"),
    "kick": ("a person kicks with the left leg", lambda x: reach(x, 7, 0) > reach(x, 8, 0) + 0.15, "left foot up"),
    "march": ("a person marches in place", lambda x: (travel(x).norm(dim=1) < 0.5) & (reach(x, 4, 1) > -0.3), "knees up"),
    "jumping jack": ("a person does jumping jacks", lambda x: reach(x, 20, 15) > 0.0, "hands over the head"),
    "bow": ("a person bows", lambda x: (x[:, :, 0, 2] - x[:, :, 15, 2]).amax(1) > -0.48, "head down"),
}
"""Action, prompt, what every motion of it must do, and that in words."""


def says(pipeline: MotionPipeline, count: int) -> None:
    """Share of generated motions that do what the text says, and of simulated ones of that action (and side)."""
    found: dict[str, Any] = {"count": count, "share": {}, "simulated": {}, "criterion": {k: v[2] for k, v in SAYS.items()}}
    for name, (prompt, does, _) in SAYS.items():
        found["share"][name] = float(does(drawn_joints(pipeline, prompt, count, seconds=2.0)).double().mean())
        found["simulated"][name] = float(does(simulated_joints(name, prompt)).double().mean())
    for kind in ("share", "simulated"):
        found[f"mean_{kind}"] = sum(found[kind].values()) / len(found[kind])
    write("says", found)


def simulated_joints(name: str, prompt: str) -> Tensor:
    """Simulated motions of an action whose captions name the sides that the prompt names; they begin facing -y."""
    true = draw([name] * 64, seed=5, fps=FPS, seconds=2.0)
    sides = [word for word in ("left", "right") if word in prompt]
    kept = [i for i, caption in enumerate(true.captions) if all(side in caption for side in sides)]
    turn = upright("y")
    return facing(true.joints[kept] @ turn) @ turn.T


RATIOS = (0.7, 0.85, 1.0, 1.15, 1.3, 1.5)
FINE, WINDOW = 60.0, 0.3
"""Rate of the splines [frames/s] and length of the parabola fits [s], in seconds of the motion at its usual speed."""


def sizes(joints: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Mean size of the joints' velocities and accelerations of each motion (N,), as played: fits over the same pieces of the
    motion at every speed, for differences of one frame would be over longer pieces of faster motions."""
    from scipy.interpolate import CubicSpline

    times = torch.arange(joints.shape[1]).double() * ratio / FPS
    at = torch.arange(0, float(times[-1]) + 1e-9, 1 / FINE)
    fine = torch.from_numpy(CubicSpline(times, joints.double(), axis=1)(at))
    _, v, a = fitted(fine, FINE, window_of(FINE, WINDOW))
    return ratio * v.norm(dim=-1).mean((1, 2)), ratio**2 * a.norm(dim=-1).mean((1, 2))


def ratio_of_means(one: Tensor, two: Tensor) -> dict[str, float]:
    """Mean of the first over mean of the second, paired, with half of its 95 % interval (jackknife)."""
    left = torch.tensor([float(one[k].mean() / two[k].mean()) for k in ~torch.eye(len(one), dtype=torch.bool)]).double()
    half = 1.96 * float(((len(one) - 1) * left.var(correction=0)).sqrt())
    return {"mean": float(one.mean() / two.mean()), "half": half}


def speeds(pipeline: MotionPipeline, count: int) -> None:
    """Mean speed over s and mean acceleration over s^2 against s = 1, the same noise; what passes the texts' tests; the same
    of simulated motions, which shows what the measure itself does."""
    prompts = [v[0] for v in SAYS.values()] * count
    found: dict[str, Any] = {"motions": len(prompts), "steps": STEPS}
    made: dict[float, tuple[Tensor, Tensor]] = {}
    true: dict[float, tuple[Tensor, Tensor]] = {}
    passed: dict[float, Tensor] = {}
    for s in (1.0, *(s for s in RATIOS if s != 1)):
        joints = pipeline(prompts, seconds=2.0, fps=FPS, seeds=list(range(len(prompts))), steps=STEPS, speed=s).joints
        made[s] = sizes(joints, s)
        passed[s] = torch.stack([does(joints[i :: len(SAYS)]) for i, (_, does, _) in enumerate(SAYS.values())]).double()
        true[s] = sizes(draw(list(SAYS) * 8, seed=6, fps=FPS / s, seconds=2.0 * s).joints, s)
        rows = {}
        for name, sets in (("generated", made), ("simulated", true)):
            v, a = (ratio_of_means(x, y) for x, y in zip(sets[s], sets[1.0], strict=True))
            off = {"velocity": v["mean"] / s - 1, "velocity_half": v["half"] / s}
            rows[name] = off | {"acceleration": a["mean"] / s**2 - 1, "acceleration_half": a["half"] / s**2}
        change = (passed[s] - passed[1.0]).flatten()
        rows["texts"] = {"share": float(passed[s].mean()), "change": interval(change.tolist())}
        found[f"{s:g}"] = rows
        print(s, json.dumps(rows), flush=True)
    write("speeds", found)


def laws(pipeline: MotionPipeline, count: int) -> None:
    """Residuals of plain sampling, law guidance, projection, acceleration consistency, and of simulated motions; mean over
    actions, paired noise. Also jerk [m/s^3] and speed [m/s] of the joints, which are not to change."""
    prompts = [v[0] for v in SAYS.values()] * count
    network = pipeline.transformer
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "guided": {"guide": LawGuidance(network, verifier_of({"skating": 1.0, "penetration": 5.0, "euler_lagrange": 0.5}))},
        "projected": {"project": Projection(network), "projected": 4},
        "consistent": {"consistency": AccelerationConsistency(network)},
    }
    ways["consistent, projected"] = ways["consistent"] | ways["projected"]
    lengths = torch.full((len(prompts),), 40)
    judged = (Skating(), Penetration(), FlightGravity(), EulerLagrange())
    found: dict[str, Any] = {"motions": len(prompts)}
    values: dict[str, dict[str, Tensor]] = {}
    for name, options in ways.items():
        start = time.process_time()
        joints = pipeline(prompts, seconds=2.0, fps=FPS, seeds=list(range(len(prompts))), steps=STEPS, **options).joints
        values[name] = {law.name: torch.where((r := law(joints, FPS, lengths)).valid, r.value, torch.nan) for law in judged}
        for k, order in (("jerk", 3), ("speed", 1)):
            values[name][k] = (FPS**order * joints.diff(n=order, dim=1)).norm(dim=-1).mean((1, 2))
        found[name] = {k: interval(v[v.isfinite()].tolist()) for k, v in values[name].items()}
        found[name]["cpu_seconds_per_motion"] = (time.process_time() - start) / len(prompts)
    for name in list(ways)[1:]:
        for k, plain in values["plain"].items():
            change = values[name][k] - plain
            found[name][k]["paired_change"] = interval(change[change.isfinite()].tolist())
    names = list(ACTIONS) * 4
    true = draw(names, seed=77, fps=FPS, seconds=2.0).joints
    residuals = [law(true, FPS, torch.full((len(true),), 40)) for law in judged]
    found["simulated"] = {law.name: interval(r.value[r.valid].tolist()) for law, r in zip(judged, residuals, strict=True)}
    write("laws", found)


def muscles(pipeline: MotionPipeline, count: int) -> None:
    """Likeness of generated accelerations to those of simulated motions whose captions and EMG are given: with their EMG, that
    of other motions, none, and plain; cosine and mean absolute difference [m/s^2] over joints, 2 s, paired noise."""
    names = list(SAYS) * count
    true = draw(names, seed=4001, fps=3 * FPS, seconds=2.6)
    told = labels(true.joints, true.rotations, true.stature, true.fps)
    signal = emg(activations(drives(told.torque.float()[:, ::2]), 1.5 * FPS), 1.5 * FPS, seed=4001)
    joints = true.joints[:, told.frames.start : told.frames.start + 120 : 3].float()
    joints = facing(joints @ upright("y")) @ upright("y").T
    own, lengths = fitted(joints, FPS, window_of(FPS))[2], torch.full((len(names),), 40)
    held = {"consistency": AccelerationConsistency(pipeline.transformer)}
    ways = {"plain": {}, "no emg": held, "others' emg": held | {"emg": signal.roll(5, 0)}, "emg": held | {"emg": signal}}
    found: dict[str, Any] = {"motions": len(names), "size": interval(own.abs().mean((1, 2, 3)).tolist())}
    values: dict[str, dict[str, Tensor]] = {}
    for name, options in ways.items():
        seeds = list(range(9000, 9000 + len(names)))
        made = pipeline(list(true.captions), seconds=2.0, fps=FPS, seeds=seeds, steps=STEPS, **options).joints
        a = fitted(made, FPS, window_of(FPS))[2]
        values[name] = {
            "cosine": torch.cosine_similarity(a.flatten(1), own.flatten(1)),
            "difference": (a - own).abs().mean((1, 2, 3)),
            "size": a.abs().mean((1, 2, 3)),
            **{law.name: law(made, FPS, lengths).value for law in (Skating(), Penetration(), EulerLagrange())},
        }
        found[name] = {k: interval(v.tolist()) for k, v in values[name].items()}
    for name in ("plain", "no emg", "others' emg"):
        found[f"emg less {name}"] = {k: interval((v - values[name][k]).tolist()) for k, v in values["emg"].items()}
    write("emg", found)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rivals", "model", "rates", "says", "speeds", "laws", "emg"))
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the rivals' training")
    parser.add_argument("--nearby", action="store_true", help="rivals with neighbouring frames mixed, as the shipped model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    globals()["OUT"] = given.out
    if given.part == "rivals":
        return rivals(given.steps, given.seeds, given.clips, given.precision, given.nearby)
    pipeline = load(given.model)
    if given.part in ("model", "says"):
        says(pipeline, given.count)
    if given.part in ("model", "rates"):
        rates(pipeline, Path(tempfile.gettempdir()) / "motion-rivals")
    if given.part in ("model", "speeds"):
        speeds(pipeline, given.count)
    if given.part in ("model", "laws"):
        laws(pipeline, given.count)
    if given.part == "emg":
        muscles(pipeline, given.count)
    return None


if __name__ == "__main__":
    main()
