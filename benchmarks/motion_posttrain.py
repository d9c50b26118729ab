"""The motion model before and after post-training by laws: the same texts and noise, residuals, independent metrics, FID.

    visviva motion posttrain --config motion-posttrain --output runs/motion-posttrained
    python benchmarks/motion_posttrain.py runs/motion-posttrained/model --motions 256 --seeds 3

Texts, reference motions and noise are drawn from seeds that neither training nor the choice of the recipe saw. Every number is
paired by motion: mean before, mean after, mean change with its 95 % interval. FID (visviva-simulated evaluator) has a jackknife
interval over motions: groups are left out of both sets at once. Written to benchmarks/results/motion-posttrain.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from visviva.data.motions.axes import upright
from visviva.data.motions.humanml3d import NAMES, PARENTS, joints_of
from visviva.data.motions.motion import HumanMotion
from visviva.eval.motion.measure import measure
from visviva.eval.motion.text import fid, mm_dist, r_precision
from visviva.eval.run import provenance
from visviva.models.motion.evaluator import MotionEvaluator
from visviva.physics.motion_laws import MOTION_LAWS
from visviva.physics.motion_laws.body import flying
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.steering import features_of
from visviva.pipelines.posttrain import checkpoint
from visviva.pipelines.posttrain.cache import weights_hash
from visviva.pipelines.pretrain.motions import Motions, Windows, simulated, windows

OUT = Path(__file__).parent / "results" / "motion-posttrain.json"
FPS, FRAMES, STEPS = 20.0, 40, 25
REAL = 1500
"""Simulated motions that FID compares with."""
LOOKED_AT = 256
"""Motions, of all seeds together, that `visviva.eval.motion.measure` measures: it takes 0.1 s for each."""
REPORTED = 9000
"""Seed of what is reported; recipes are chosen on another one (--seed)."""
MEASURED = ("support", "sliding", "skating_ratio", "penetrate", "float_grounded", "contact", "speed", "acceleration", "jerk")
MEASURED += ("bone_change", "el_violation", "flight_gravity")


def held(motions: Motions, count: int, seed: int) -> Windows:
    """Windows of 2 s, as training draws them, one of each of the first ``count`` clips."""
    return windows(motions, torch.arange(count), FRAMES, FPS, torch.Generator().manual_seed(seed))


def made(pipeline: MotionPipeline, texts: list[str], first: int, steps: int) -> Tensor:
    """Joints (N, T, 22, 3) of texts, noise from the seeds ``first``, ``first + 1``, ..."""
    found = []
    for k in range(0, len(texts), 32):
        some = texts[k : k + 32]
        seeds = list(range(first + k, first + k + len(some)))
        found.append(pipeline(some, seconds=FRAMES / FPS, fps=FPS, seeds=seeds, steps=steps).joints)
    return torch.cat(found)


def kept(model: MotionPipeline, texts: list[str], given: argparse.Namespace) -> Tensor:
    """A model's motions, kept in a file: the base's are the same for every model that is compared with it."""
    about = [weights_hash([model.transformer, model.text_encoder]), texts, given.seed, given.steps]
    file = Path(given.folder) / f"made-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}.safetensors"
    if not file.is_file():
        save_file({"joints": made(model, texts, 1_000_000 * given.seed, given.steps)}, file)
    return load_file(file)["joints"]


def residuals(joints: Tensor, before: Tensor | None = None) -> dict[str, Tensor]:
    """What each motion has of each law and of each metric, NaN where it has none."""
    lengths, found = torch.full((len(joints),), joints.shape[1]), {}
    for name, law in MOTION_LAWS.items():
        if name == "liveliness" and before is None:
            continue
        r = law()(joints, FPS, lengths, **({"reference": before} if name == "liveliness" else {}))
        found[f"law {name}"] = torch.where(r.valid, r.value, torch.nan).double()
    found["share of frames in flight"] = flying(joints).double().mean(1)
    found["mean joint speed"] = (joints.diff(dim=1).norm(dim=-1) * FPS).double().mean((1, 2))
    some = joints[:LOOKED_AT]
    scores = [measure(HumanMotion(x, NAMES, PARENTS, FPS, floor=0.0), floor=0.0).scores for x in some]
    for name in MEASURED:
        values = torch.tensor([score[name].value for score in scores], dtype=torch.float64)
        found[name] = (values + 9.81).abs() if name == "flight_gravity" else values
    return found


def paired(before: Tensor, after: Tensor) -> dict[str, float]:
    """Means, and the change with half of its 95 % interval (normal), over the motions that have both numbers."""
    both = before.isfinite() & after.isfinite()
    change = (after - before)[both]
    half = 1.96 * float(change.std()) / max(1, len(change)) ** 0.5 if len(change) > 1 else math.nan
    means = {"before": float(before[both].mean()), "after": float(after[both].mean()), "change": float(change.mean())}
    return means | {"half_interval": half, "motions": len(change)}


def jackknife(value: Callable[[Tensor], float], count: int, groups: int = 64) -> tuple[float, float]:
    """A statistic of all ``count`` motions and half of its 95 % interval, by leaving out one group after the other."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    group = torch.empty(count, dtype=torch.long)
    group[order] = torch.arange(count) % groups
    left = torch.tensor([value((group != k).nonzero()[:, 0]) for k in range(groups)], dtype=torch.float64)
    spread = ((groups - 1) / groups * (left - left.mean()).square().sum()).sqrt()
    return value(torch.arange(count)), 1.96 * float(spread)


def distances(before: Tensor, after: Tensor, real: Tensor) -> dict[str, Any]:
    """FID of both sets of embeddings, and their ratio with its interval."""
    one, one_half = jackknife(lambda i: fid(before[i], real), len(before))
    two, two_half = jackknife(lambda i: fid(after[i], real), len(after))
    log, half = jackknife(lambda i: math.log(fid(after[i], real) / fid(before[i], real)), len(before))
    ratio = {"ratio": math.exp(log), "low": math.exp(log - half), "high": math.exp(log + half)}
    return {"before": one, "before_half": one_half, "after": two, "after_half": two_half, **ratio, "motions": len(before)}


def hits(text: Tensor, motion: Tensor, top: int) -> Tensor:
    """Whether each motion is among the ``top`` nearest of its 32, in whole batches (0 or 1 each)."""
    found = [r_precision(text[k : k + 32], motion[k : k + 32], top)[top - 1] for k in range(0, len(text) // 32 * 32, 32)]
    return torch.stack(found).double()


def compared(base: MotionPipeline, trained: MotionPipeline, given: argparse.Namespace) -> dict[str, Any]:
    """Everything, over all seeds together; FID and R-precision also of each seed alone."""
    folder, evaluator = Path(given.folder), MotionEvaluator.load()
    count, seed = given.motions, given.seed
    real = held(simulated([], REAL, seed, 4.0, folder), REAL, seed)
    asked = held(simulated([], count * given.seeds, seed + 1, 4.0, folder), count * given.seeds, seed + 1)
    sets = [kept(p, asked.texts, given) for p in (base, trained)]
    with torch.no_grad():
        text, target = evaluator.texts(asked.texts), evaluator.motions(real.features)
        one, two = (evaluator.motions(features_of(x, FPS)) for x in sets)
        true = evaluator.motions(asked.features)
    found: dict[str, Any] = {"fid": distances(one, two, target), "fid_of_simulated_motions": fid(true, target)}
    parts = [slice(k * count, (k + 1) * count) for k in range(given.seeds)]
    found["fid_by_seed"] = [{"before": fid(one[p], target), "after": fid(two[p], target)} for p in parts]
    for top in (1, 3):
        found[f"r_precision_{top}"] = paired(hits(text, one, top), hits(text, two, top))
        found[f"r_precision_{top}"]["batches"] = found[f"r_precision_{top}"].pop("motions")
        found[f"r_precision_{top}"]["simulated"] = float(hits(text, true, top).mean())
    found["mm_dist"] = {"before": mm_dist(text, one), "after": mm_dist(text, two), "simulated": mm_dist(text, true)}
    a, b = residuals(sets[0], sets[0]), residuals(sets[1], sets[0])
    found["metrics"] = {name: paired(a[name], b[name]) for name in a}
    drawn = residuals(joints_of(asked.features[:128], FPS) @ upright("y").T)
    for name, values in drawn.items():
        found["metrics"][name]["simulated"] = float(values[values.isfinite()].mean())
    return found


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", help="folder of the post-trained model")
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--motions", type=int, default=256, help="of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=REPORTED)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "motion-posttrain"))
    parser.add_argument("--out", default=str(OUT))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = compared(load(given.base), load(given.trained), given)
    begun = checkpoint.latest(Path(given.trained).parent / "checkpoints")
    content = {
        "evaluator": MotionEvaluator.load().name,
        "settings": {k: v for k, v in vars(given).items() if k not in ("folder", "out", "trained")},
        "recipe": checkpoint.load(begun).state if begun else None,
        **found,
        "made_with": provenance(),
    }
    Path(given.out).write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
