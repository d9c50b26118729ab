"""What is shipped beside the motion model's weights: recipe, curves (numbers and picture) and a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.run import provenance
from visviva.pipelines.motion.pipeline import MotionPipeline
from visviva.pipelines.pretrain.motions import Motions


def write(
    pipeline: MotionPipeline, recipe: PretrainRecipe, motions: Motions, held_out: Motions, out: Path, model: Path
) -> None:
    """Write ``recipe.json``, ``motion.jsonl``, ``curves.png`` and ``README.md`` into the model's folder."""
    rows = [json.loads(line) for line in (out / "motion.jsonl").read_text().splitlines()]
    shutil.copy(out / "motion.jsonl", model / "motion.jsonl")
    (model / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    _draw(rows, model / "curves.png")
    (model / "README.md").write_text(_card(pipeline, recipe, motions, held_out, rows))


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3), layout="constrained")
    steps = [row["step"] for row in rows]
    for key in sorted({k for row in rows for k in row if k.startswith("validation_")}, key=lambda k: float(k.split("_")[1])):
        axis.plot(steps, [row[key] for row in rows], ".-", lw=1, label=f"{key.split('_')[1]} frames/s")
    axis.set(xlabel="update", ylabel="held-out squared error", title="motion model, averaged weights", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _card(pipeline: MotionPipeline, recipe: PretrainRecipe, motions: Motions, held_out: Motions, rows: list[Any]) -> str:
    stage, last, made = recipe.motion, rows[-1] if rows else {}, provenance()
    sizes = {n: sum(p.numel() for p in getattr(pipeline, n).parameters()) for n in ("transformer", "text_encoder")}
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in sizes.items())
    source = (
        f"HumanML3D-format folder {Path(stage.data).name!r}" if stage.data else "simulated actions (`visviva.data.actions`)"
    )
    licence = (
        "that of its data" if stage.data else "Apache-2.0, as the package. The motions are simulated; no recordings were used"
    )
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    losses = ", ".join(f"{v:.4f} ({k.split('_')[1]} frames/s)" for k, v in last.items() if k.startswith("validation_"))
    return f"""# tiny motion

A small text-to-motion diffusion model: ten body parts, ArtAttention (after LMM, arXiv 2404.01284), a word encoder;
HumanML3D's 263 features. It exists so that everything runs without a download or a GPU. It knows the
actions it was trained on, done by stick figures of simple controllers, and nothing of how people really move.

| | |
|---|---|
| parameters | {parts} |
| trained on | {source}: {len(motions)} clips, fingerprint {motions.fingerprint} |
| held out | {len(held_out)} clips, fingerprint {held_out.fingerprint} |
| windows | up to {stage.frames} frames at {", ".join(f"{r:g}" for r in dict.fromkeys(stage.rates))} frames/s |
| updates | {last.get("step", 0)} of {stage.steps}, batches of {stage.batch_size} |
| held-out squared error | {losses} |
| seed | {recipe.seed} |
| made with | {versions}; {made["machine"]}; commit {made.get("commit") or "unknown"} |

Weights are float32 safetensors, averaged over updates (EMA). `recipe.json` holds every setting, `motion.jsonl` and `curves.png`
the curves. Train it again with `visviva pretrain --config pretrain-motion`; use it with
`visviva motion generate "a person jumps forward"`.

Limits: motions of 2 to 4 s; words that no caption had are not understood (and are named); texts of more than 24 words are
refused.

Licence: {licence}.
"""
