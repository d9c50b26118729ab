"""The claim of NewtonRewards (arXiv 2512.00425) at our scale: its reward pair against the base and against more fine-tuning.

    python benchmarks/newton_rewards.py --output runs/newton-rewards --seeds 0 1 2

For every training seed each arm starts from the same base model and sees the same clips in the same order. ``sft`` goes on
with flow matching for as many clips as ``newton``; ``sft_seconds`` for as many seconds (its number of updates is the seconds of
the ``newton`` run of that seed over its own seconds per update). All arms generate the same held-out clips, in distribution and
beyond it, from the same noise. Every step is kept on disk: a killed benchmark goes on where it was, and an arm of a seed whose
``metrics.json`` and ``seconds.json`` are there is not run again. Writes ``results.json`` and ``results.md``: average relative
improvement over the five metrics, per primitive and split, with paired 95 % intervals that resample scenes and seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import PosttrainRecipe, Sampler
from visviva.configs.schema import load
from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.eval.comparison import Group, compare
from visviva.eval.newtonbench import FIVE
from visviva.eval.run import Run, merged, provenance, write_json
from visviva.pipelines import generate, posttrain, simulate
from visviva.pipelines.demo import measured

ARMS = {
    "newton": "posttrain-newton",
    "sft": "posttrain-sft",
    "sft_seconds": "posttrain-sft",
    "kinematic": "posttrain-kinematic",
    "mass": "posttrain-mass",
    "material": "posttrain-material",
    "eulerian": "posttrain-eulerian",
    "flow": "posttrain-flow",
}
TRAIN, TEST = 2001, {"id": 3001, "ood": 3002}
"""Seeds of the simulated sets; the shipped model was trained on seed 1 and validated on seeds 1001 and 1002."""


def sets(out: Path, train_clips: int, test_clips: int, seeds: Iterable[int] = TEST.values()) -> tuple[Path, dict[str, Path]]:
    """Simulate the training set and the two held-out ones into ``out`` where they are not there; return their folders."""

    def one(name: str, clips: int, seed: int, **options: Any) -> Path:
        return simulate.run(SimulateRecipe(output=str(out / name), clips=clips, seed=seed, arrays="small", **options))

    tests = {split: one(f"test-{split}", test_clips, seed, split=split) for split, seed in zip(TEST, seeds, strict=True)}
    return one("train", train_clips, TRAIN), tests


def main() -> None:
    """Simulate, train every arm for every seed, generate, score, compare, write."""
    given = options()
    torch.set_num_threads(given.threads)
    out = Path(given.output)
    train, tests = sets(out, given.train_clips, given.test_clips)
    base = scored(given, out / "base", tests, "")
    found: dict[str, dict[int, Run]] = {arm: {} for arm in given.arms}
    seconds: dict[str, dict[int, float]] = {arm: {} for arm in given.arms}
    for seed in given.seeds:
        for arm in given.arms:
            folder = out / f"{arm}-{seed}"
            updates = given.updates
            if arm == "sft_seconds":
                updates = round(given.updates * seconds["newton"][seed] / seconds["sft"][seed])
            if not (folder / "metrics.json").is_file():
                lora = trained(given, arm, seed, train, folder, updates)
                scored(given, folder, tests, lora)
            found[arm][seed] = Run.read(folder)
            seconds[arm][seed] = float(json.loads((folder / "seconds.json").read_text())["seconds"])
        write(given, out, base, {arm: merged(arm, runs) for arm, runs in found.items()}, seconds)
        print((out / "results.md").read_text(), flush=True)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/newton-rewards")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), help="newton and sft before sft_seconds")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--train-clips", type=int, default=200)
    parser.add_argument("--test-clips", type=int, default=60, help="per split")
    parser.add_argument("--steps", type=int, default=4, help="sampler steps of training and generation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of every training recipe")
    return parser.parse_args()


def trained(given: argparse.Namespace, arm: str, seed: int, train: Path, folder: Path, updates: int) -> str:
    """Post-train one arm, note the seconds it took, and return its adapters."""
    note = folder / "seconds.json"
    changes: dict[str, Any] = {
        "data.path": str(train),
        "output": str(folder / "training"),
        "max_steps": updates,
        "model.path": given.model,
        "sampler.steps": given.steps,
        "seed": seed,
        "validation.every": 0,
        "save_every": updates,
        "trackers": [],
        "monitor.every": 0,  # a collapse is a result here, not a reason to stop
        "data.cache": str(folder.parent / "cache"),
    }
    changes |= {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in given.set)}
    start = time.perf_counter()
    result = posttrain.run(load(PosttrainRecipe, ARMS[arm], **changes))
    if not note.is_file():
        note.write_text(json.dumps({"seconds": time.perf_counter() - start, "updates": updates}))
    return str(result.ema or result.weights)


def scored(given: argparse.Namespace, folder: Path, tests: dict[str, Path], lora: str, **changes: Any) -> Run:
    """Generate the held-out clips of both splits and score them; kept as ``metrics.json``. ``changes`` are further settings."""
    if (folder / "metrics.json").is_file():
        return Run.read(folder / "metrics.json")
    clips = []
    for split, truth in tests.items():
        recipe = GenerateRecipe(
            prompts=str(truth),
            output=str(folder / split),
            lora=lora,
            model={"path": given.model},
            batch_size=8,
            sampler=Sampler(steps=given.steps),
            **changes,
        )
        clips += measured(folder.name, generate.run(recipe), truth).clips
    run = Run(folder.name, clips, {"lora": lora})
    write_json(folder / "metrics.json", run.to_json())
    return run


def write(given: argparse.Namespace, out: Path, base: Run, runs: dict[str, Run], seconds: dict[str, dict[int, float]]) -> None:
    """Compare every arm with the base and, where there is one, with continued fine-tuning."""
    against: dict[str, dict[str, list[Group]]] = {"base": {arm: compare(base, run) for arm, run in runs.items()}}
    for control in ("sft", "sft_seconds"):
        if control in runs:
            against[control] = {arm: compare(runs[control], run) for arm, run in runs.items() if not arm.startswith("sft")}
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "threads": given.threads},
        "base": [row.to_json() for row in base.table()],
        "seconds": seconds,
        "against": {c: {arm: [slim(g) for g in groups] for arm, groups in arms.items()} for c, arms in against.items()},
        "clips": rows(base, runs),
        "train_fingerprint": ClipDataset(out / "train").fingerprint,
    }
    write_json(out / "results.json", content)
    (out / "results.md").write_text("\n\n".join(table(control, arms) for control, arms in against.items()) + "\n")


def slim(group: Group) -> dict[str, Any]:
    """Return what the tables show of one comparison; everything else follows from the clips' rows."""
    metrics = {m: {"before": c.before.value, "after": c.after.value, "verdict": c.verdict} for m, c in group.metrics.items()}
    gain = group.improvement
    interval = {"value": gain.value, "low": gain.low, "high": gain.high}
    return {
        "primitive": group.primitive,
        "split": group.split,
        "pairs": group.pairs,
        "improvement": interval,
        "metrics": metrics,
    }


def rows(base: Run, runs: dict[str, Run]) -> dict[str, Any]:
    """Return every clip's penalised metrics, by run: the raw data of all tables."""
    found: dict[str, list[Any]] = {}
    for arm, run in {"base": base, **runs}.items():
        for c in run.clips:
            name = arm if c.seed is None else f"{arm}-{c.seed}"
            values = [round(c.penalised[m].value, 5) for m in FIVE]
            found.setdefault(name, []).append([c.scene, *values, round(c.lost, 3)])
    return {"columns": ["scene", *FIVE, "lost"], "rows": found}


def table(control: str, arms: dict[str, list[Group]]) -> str:
    """Return one Markdown table: rows are arms, columns are splits and primitives, entries are per cent with intervals."""
    columns = [(g.primitive, g.split) for g in next(iter(arms.values()))]
    lines = [f"Average relative improvement over the five metrics against **{control}** [%], 95 % interval:", ""]
    lines.append("| arm | " + " | ".join(f"{p.replace('_', ' ')} {s.upper()}" for p, s in columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for arm, groups in arms.items():
        cells = [
            f"{100 * g.improvement.value:+.1f} ({100 * g.improvement.low:+.1f} to {100 * g.improvement.high:+.1f})"
            for g in groups
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
