"""What is shipped beside the flow network's weights: recipe, curve (numbers and picture), checksums and a model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.run import provenance
from visviva.models.probes.flow.pyramid import FlowPyramid
from visviva.pipelines.pretrain.flow_clips import ClipPairs


def write(
    network: FlowPyramid,
    recipe: PretrainRecipe,
    clips: ClipPairs | None,
    baseline: float,
    out: Path,
    model: Path,
    device: str = "the processor",
) -> None:
    """Write ``recipe.json``, the curve, ``README.md`` and ``SHA256SUMS`` into the model's folder; ``baseline``: DIS's error."""
    rows = [json.loads(line) for line in (out / "flow.jsonl").read_text().splitlines()]
    shutil.copy(out / "flow.jsonl", model / "flow.jsonl")
    (model / "recipe.json").write_text(
        recipe.model_dump_json(indent=1, include={"verb", "model", "flow", "precision", "seed"}) + "\n"
    )
    _draw(rows, baseline, model / "curves.png")
    (model / "README.md").write_text(_card(network, recipe, clips, rows, baseline, device))
    files = sorted(f for f in model.rglob("*") if f.is_file() and f.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(model).as_posix()}\n" for f in files]
    (model / "SHA256SUMS").write_text("".join(sums))


def _draw(rows: list[dict[str, float]], baseline: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 3), layout="constrained")
    axis.plot([r["step"] for r in rows], [r["held_out_epe"] for r in rows], ".-", color="#1f6feb", label="flow network")
    axis.axhline(baseline, color="#8a8a8a", linestyle="--", label="DIS medium")
    axis.set(xlabel="update", ylabel="held-out EPE [px]", ylim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _card(
    network: FlowPyramid,
    recipe: PretrainRecipe,
    clips: ClipPairs | None,
    rows: list[dict[str, float]],
    baseline: float,
    device: str,
) -> str:
    made, last, stage = provenance(), rows[-1] if rows else {}, recipe.flow
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    simulated = f"{len(clips)} clips, fingerprints {', '.join(clips.fingerprints)}" if clips else "none"
    reached = last.get("held_out_epe", float("nan"))
    count = sum(p.numel() for p in network.parameters())
    return f"""# flow-small

Optical flow of consecutive frames, with an estimate of its error: `visviva.models.probes.FlowNetwork`. Trained from scratch on
scenes drawn by visviva (textured and plain shapes and backgrounds in affine motion, camera motion, blur, noise, compression,
changing light) and on clips that it simulated; no third-party data or weights. Made for frames of 32 to 512 pixels.

| | |
|---|---|
| parameters | {count} |
| drawn scenes | seed {recipe.seed}, {stage.side} px square, {stage.large:.0%} of the updates {2 * stage.side} px |
| simulated clips | {simulated}; {stage.simulated:.0%} of the pairs |
| updates | {last.get("step", 0)} of {stage.batch_size} pairs, {recipe.precision}, on {device} |
| held-out drawn scenes, 64 pairs of 96 px | EPE {reached:.3f} px; OpenCV DIS medium {baseline:.3f} px |
| card made with | {versions}; {made["machine"]}; commit {made.get("commit") or "unknown"} |

Weights are float32 safetensors, averaged over updates (EMA). `recipe.json` holds every setting, `flow.jsonl` and `curves.png`
the curve. Train it again with `visviva pretrain --config pretrain-flow`, which says how to simulate the clips. How it compares
with other estimators, on simulated clips and a real pair too: `python benchmarks/flow.py`.

Licence: Apache-2.0, as the package.
"""
