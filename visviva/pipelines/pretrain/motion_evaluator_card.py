"""What is shipped beside the motion evaluator's weights: recipe, curve (numbers and picture), numbers, checksums and a card."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.run import provenance, write_json
from visviva.models.motion.evaluator import MotionEvaluator


def write(evaluator: MotionEvaluator, recipe: PretrainRecipe, numbers: dict[str, float], out: Path, model: Path) -> None:
    """Write everything into the model's folder."""
    rows = [json.loads(line) for line in (out / "evaluator.jsonl").read_text().splitlines()]
    shutil.copy(out / "evaluator.jsonl", model / "evaluator.jsonl")
    kept = recipe.model_dump_json(indent=1, include={"verb", "model", "evaluator", "seed"})
    (model / "recipe.json").write_text(kept + "\n")
    write_json(model / "numbers.json", {"numbers": numbers, "made_with": provenance()})
    _draw(rows, model / "curves.png")
    (model / "README.md").write_text(_card(evaluator, recipe, numbers))
    files = sorted(f for f in model.iterdir() if f.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files]
    (model / "SHA256SUMS").write_text("".join(sums))


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    left.plot([r["step"] for r in rows], [r["loss"] for r in rows], ".-", color="#1f6feb")
    left.set(xlabel="update", ylabel="loss", ylim=(0, None))
    right.plot([r["step"] for r in rows], [r["top_1"] for r in rows], ".-", color="#1f6feb")
    right.set(xlabel="update", ylabel="held-out R-precision, top 1 of 32", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _card(evaluator: MotionEvaluator, recipe: PretrainRecipe, n: dict[str, float]) -> str:
    made, stage = provenance(), recipe.evaluator
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    count = sum(p.numel() for p in evaluator.parameters())
    ranks = "\n".join(
        f"| R-precision, top {k} of 32 | {n[f'top_{k}']:.3f} +- {n[f'top_{k}_interval']:.3f} "
        f"| {n[f'top_{k}_action_alone']:.3f} | {k / 32:.3f} |"
        for k in (1, 2, 3)
    )
    fids = "\n".join(
        f"| {said} | {n[key]:.3f} |"
        for key, said in {
            "fid_real": "the other half of the held-out clips",
            "fid_noise_5_mm": "with 5 mm of noise in every joint",
            "fid_noise_20_mm": "with 20 mm",
            "fid_noise_50_mm": "with 50 mm",
            "fid_sliding": "pulled along the floor with 0.5 m/s",
            "fid_reversed": "played backwards",
            "fid_frozen": "frozen in their first frame",
            "fid_same_action_most": "one action against itself (halves; the largest)",
            "fid_other_action_least": "one action against another one (the least)",
        }.items()
    )
    return f"""# {evaluator.name}

Text and motion encoders with one space, for FID, R-precision, MM-Dist, Diversity and MultiModality
(`visviva.models.motion.evaluator.MotionEvaluator`, `visviva.eval.motion.text`). {count} weights, trained on {stage.clips}
simulated actions and their captions (`visviva.data.actions`), seed {recipe.seed}, {stage.steps} updates of {stage.batch_size}
pairs, {n["seconds"]:.0f} s without the drawing, on one thread of a busy machine. No recordings, no third-party data.

    visviva pretrain --config pretrain-motion-evaluator

On {stage.held_out} other clips (3 s, 20 frames/s; interval: 95 %, over clips):

| | this | knowing the action alone | chance |
|---|---|---|---|
{ranks}

MM-Dist {n["mm_dist"]:.3f} (of wrong pairs {n["mm_dist_shuffled"]:.3f}), Diversity {n["diversity"]:.3f}.

| FID of half of these clips to the other half | |
|---|---|
{fids}

Name it with every number. It knows the actions and the words of the simulation, on HumanML3D's features at 20 frames/s;
its numbers cannot be compared with those of the published evaluators, and of recorded people it says little.

Weights are float32 safetensors; card made with {versions}; {made["machine"]}; commit {made.get("commit") or "unknown"}.
Licence: Apache-2.0, as the package.
"""
