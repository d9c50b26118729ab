"""Every way of steering this package has, on one backbone, one data set and the same CPU seconds: which wins, at what cost.

    python benchmarks/steering.py --output runs/steering --seeds 0 1

Each trained arm gets the same number of CPU seconds of updates (``--budgets``): a few updates are timed, and the run goes on
for as many as the budget holds, so cheap updates are many; a larger budget continues the run of the smaller one. Data that
an arm must make first (generated losers of preference pairs) and what steers while generating (guidance, best of N) are
counted apart. All arms generate the same held-out clips, in distribution and beyond it, from the same noise. A killed benchmark
goes on where it was. Writes ``results.json``, ``results.md`` and ``steering.png``: average relative improvement over the five
metrics with paired 95 % intervals that resample scenes and seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from newton_rewards import rows, scored, sets, slim

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import PosttrainRecipe, Sampler
from visviva.configs.prefer import PreferRecipe
from visviva.configs.schema import load
from visviva.data.dataset import ClipDataset
from visviva.eval.comparison import Group, compare
from visviva.eval.run import Run, merged, provenance, write_json
from visviva.pipelines import generate, prefer
from visviva.pipelines.posttrain.log import read
from visviva.pipelines.posttrain.parallel import leave
from visviva.pipelines.posttrain.trainer import Trained
from visviva.pipelines.posttrain.video import VideoTrainer

PAIRED = {"method": "dpo", "batch_size": 4, "gradient_accumulation": 1}
GROUPS = {"batch_size": 2, "gradient_accumulation": 1, "grpo.group": 8, "reward.checkpointing": "none"}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("posttrain-sft", {}),
    "newton": ("posttrain-newton", {}),
    "flow": ("posttrain-flow", {}),
    "refl": ("posttrain-newton", {"method": "refl"}),
    "grpo-flow": ("posttrain-grpo", GROUPS),
    "grpo-dance": ("posttrain-grpo", GROUPS | {"grpo.sde": "dance_grpo"}),
    "dpo": ("posttrain-dpo", PAIRED),
    "phygdpo": ("posttrain-dpo", PAIRED | {"method": "phygdpo"}),
    "sft+attention": ("posttrain-sft", {"attention.kind": "momentum", "attention.learned": True}),
    "sft+experts": ("posttrain-sft", {"experts.kind": "prophy"}),
}
"""Trained arms: the recipe, and what is changed in it."""
STEERED: dict[str, dict[str, Any]] = {
    "guidance": {"guidance": {"scale": 1.0, "last": 2, "inner": 2, "masks": "track"}},
    "best-of-4": {"best": {"of": 4, "masks": "track"}},
}
"""Arms that train nothing: what is changed in generation."""
PILOT = 3
"""Updates that are timed first; the first of them, which warms up, is not counted."""


class Clocked(VideoTrainer):
    """The trainer, with the CPU seconds of each update in its log."""

    def update(self, update: int) -> dict[str, float]:
        """Do one update; ``cpu_seconds`` is the time that this process computed, whatever else the machine did."""
        began = time.process_time()
        values = super().update(update)
        return values | {"cpu_seconds": time.process_time() - began}


def main() -> None:
    """Simulate, train every arm for every seed, generate, score, compare, write."""
    given = options()
    torch.set_num_threads(given.threads)
    out = Path(given.output)
    train, tests = sets(out, given.train_clips, given.test_clips)
    base = timed(out / "base", lambda: scored(given, out / "base", tests, ""))
    found: dict[str, dict[int, Run]] = {}
    for arm in (a for a in given.arms if a in STEERED):
        run = timed(out / arm, lambda arm=arm: scored(given, out / arm, tests, "", **STEERED[arm]))
        found[arm] = {0: run}
    arms = [a for a in given.arms if a in ARMS]
    for budget, seed, arm in product(sorted(given.budgets), given.seeds, arms):
        if budget > min(given.budgets) and arm not in given.longer:
            continue
        folder = out / f"{arm}-{seed}" / f"{budget:g}s"
        lora = trained(given, arm, seed, train, folder, budget)
        if given.train_only:
            continue
        run = timed(folder, lambda f=folder, x=lora: scored(given, f, tests, x))
        found.setdefault(f"{arm}@{budget:g}", {})[seed] = run
        write(given, out, base, found)
    if not found:
        return
    write(given, out, base, found)
    print((out / "results.md").read_text(), flush=True)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/steering")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--arms", nargs="+", default=[*ARMS, *STEERED], choices=[*ARMS, *STEERED])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--budgets", nargs="+", type=float, default=[60.0], help="CPU seconds of updates for each trained arm")
    parser.add_argument(
        "--longer", nargs="+", default=[*ARMS], choices=[*ARMS], help="arms that get all budgets, not the first alone"
    )
    parser.add_argument("--train-clips", type=int, default=200)
    parser.add_argument("--test-clips", type=int, default=60, help="per split")
    parser.add_argument("--steps", type=int, default=4, help="sampler steps of training and generation")
    parser.add_argument("--train-only", action="store_true", help="leave generation and scores to a later call")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def timed(folder: Path, work: Callable[[], Run]) -> Run:
    """Score a folder, and note beside the scores the CPU seconds of the first time (generation and measurement)."""
    began = time.process_time()
    run = work()
    note = folder / "scored-seconds.json"
    if not note.is_file():
        note.write_text(json.dumps({"cpu_seconds": time.process_time() - began}))
    return run


def trained(given: argparse.Namespace, arm: str, seed: int, train: Path, folder: Path, budget: float) -> str:
    """Post-train one arm for the budget, note updates and seconds, and return its adapters."""
    note = folder / "seconds.json"
    if note.is_file():
        return str(json.loads(note.read_text())["lora"])
    folder.mkdir(parents=True, exist_ok=True)
    (name, changes), output = ARMS[arm], folder.parent / "training"
    fixed: dict[str, Any] = {
        "data.path": str(train if "dpo" not in arm else pairs(given, train, Path(given.output))),
        "output": str(output),
        "model.path": given.model,
        "sampler.steps": given.steps,
        "seed": seed,
        "validation.every": 0,
        "save_every": 10,
        "trackers": [],
        "monitor.every": 0,  # a collapse is a result here, not a reason to stop
        "optimizer.warmup": 0,  # dear updates are few
        "ema.decay": 0.9,
        "data.cache": str(Path(given.output) / "cache"),
    }
    if len(clock(output)) < PILOT:
        clocked(load(PosttrainRecipe, name, **fixed, **changes, max_steps=PILOT))
    seconds = clock(output)
    each = sum(seconds[1:PILOT]) / (PILOT - 1)
    updates = max(PILOT, PILOT + round((budget - sum(seconds[:PILOT])) / each))
    result = clocked(load(PosttrainRecipe, name, **fixed, **changes, max_steps=updates))
    lora = str(result.ema or result.weights)
    note.write_text(json.dumps({"cpu_seconds": sum(clock(output)), "updates": updates, "lora": lora}))
    return lora


def clocked(recipe: PosttrainRecipe) -> Trained:
    """Train with the clock, or continue; a finished run is exported again."""
    recipe.check()
    try:
        return Clocked(recipe).run()
    finally:
        leave()


def clock(output: Path) -> list[float]:
    """Return the CPU seconds of every update so far."""
    return [line["cpu_seconds"] for line in read(output / "metrics.jsonl") if line["kind"] == "train"]


def pairs(given: argparse.Namespace, train: Path, out: Path) -> Path:
    """Return preference data: a clip of the base for each training clip, where the laws score it worse; timed."""
    folder, note = out / "pairs", out / "pairs-seconds.json"
    if note.is_file():
        return folder
    began = time.process_time()
    settings = {"model": {"path": given.model}, "batch_size": 8, "sampler": Sampler(steps=given.steps)}
    made = generate.run(GenerateRecipe(prompts=str(train), output=str(out / "pairs-generated"), **settings))
    prefer.run(PreferRecipe(generated=str(made), output=str(folder), losers=1))
    note.write_text(json.dumps({"cpu_seconds": time.process_time() - began, "rows": len(ClipDataset(folder).rows)}))
    return folder


# ------------------------------------------------------------------------------------------------------------------- the report


def costs(out: Path, arm: str, seeds: list[int]) -> dict[str, float]:
    """Return what an arm cost [CPU s]: mean over seeds of training, data made for it, and generation beyond the base's."""
    told = lambda path: json.loads(path.read_text()) if path.is_file() else {"cpu_seconds": 0.0}  # noqa: E731
    if arm in STEERED:
        more = (
            told(out / arm / "scored-seconds.json")["cpu_seconds"] - told(out / "base" / "scored-seconds.json")["cpu_seconds"]
        )
        return {"training": 0.0, "data": 0.0, "generation": more, "updates": 0}
    name, budget = arm.split("@")
    notes = [told(out / f"{name}-{seed}" / f"{budget}s" / "seconds.json") for seed in seeds]
    return {
        "training": sum(n["cpu_seconds"] for n in notes) / len(notes),
        "data": told(out / "pairs-seconds.json")["cpu_seconds"] if "dpo" in arm else 0.0,
        "generation": 0.0,
        "updates": sum(n["updates"] for n in notes) / len(notes),
    }


def write(given: argparse.Namespace, out: Path, base: Run, found: dict[str, dict[int, Run]]) -> None:
    """Compare every arm with the base and with continued fine-tuning; write numbers, table and plot."""
    runs = {arm: merged(arm, of) for arm, of in found.items()}
    against: dict[str, dict[str, list[Group]]] = {"base": {arm: whole(base, run) for arm, run in runs.items()}}
    control = {arm: f"sft@{arm.split('@')[1]}" for arm in found if "@" in arm and not arm.startswith("sft@")}
    control = {arm: c for arm, c in control.items() if set(found[arm]) <= set(found.get(c, {}))}
    same = {arm: merged("sft", {seed: found[c][seed] for seed in found[arm]}) for arm, c in control.items()}
    against["sft"] = {arm: whole(same[arm], runs[arm]) for arm in control}
    cost = {arm: costs(out, arm, list(of)) for arm, of in found.items()}
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "threads": given.threads},
        "seeds": {arm: list(of) for arm, of in found.items()},
        "cpu_seconds": cost,
        "against": {c: {arm: [slim(g) for g in groups] for arm, groups in arms.items()} for c, arms in against.items()},
        "clips": rows(base, runs),
        "train_fingerprint": ClipDataset(out / "train").fingerprint,
    }
    write_json(out / "results.json", content)
    (out / "results.md").write_text(table(against, cost, found))
    drawn(out / "steering.png", against["base"], cost)


def whole(before: Run, after: Run) -> list[Group]:
    """Compare over all primitives, per split."""
    return [group for group in compare(before, after) if group.primitive == "all"]


def table(
    against: dict[str, dict[str, list[Group]]], cost: dict[str, dict[str, float]], found: dict[str, dict[int, Run]]
) -> str:
    """Return the Markdown table: improvement [%] with 95 % intervals over base and over sft, and CPU seconds."""
    lines = [
        "| arm | seeds | updates | CPU s | over base, ID | OOD | over sft, ID | OOD |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, groups in sorted(against["base"].items(), key=lambda item: -item[1][0].improvement.value):
        spent = cost[arm]
        extra = f" + {spent['data']:.0f} data" if spent["data"] else ""
        seconds = f"{spent['training']:.0f}{extra}" if "@" in arm else f"{spent['generation']:.0f} generation"
        cells = [told(g) for g in groups] + [told(g) for g in against.get("sft", {}).get(arm, [])]
        cells += [""] * (4 - len(cells))
        lines.append(f"| {arm} | {len(found[arm])} | {spent['updates']:.0f} | {seconds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def told(group: Group) -> str:
    """Return an improvement with its interval, in per cent; bold where the interval excludes zero."""
    gain = group.improvement
    text = f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    return f"**{text}**" if gain.significant else text


def drawn(path: Path, arms: dict[str, list[Group]], cost: dict[str, dict[str, float]]) -> None:
    """Draw gain over the base against CPU seconds, a panel per split."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), constrained_layout=True)
    for column, (axis, split) in enumerate(zip(axes, ("in distribution", "beyond it"), strict=True)):
        for i, name in enumerate(dict.fromkeys(arm.split("@")[0] for arm in arms)):
            points = [arm for arm in arms if arm.split("@")[0] == name]
            x = [sum(cost[arm][part] for part in ("training", "data", "generation")) for arm in points]
            gains = [arms[arm][column].improvement for arm in points]
            error = [[100 * (g.value - g.low) for g in gains], [100 * (g.high - g.value) for g in gains]]
            style = f"s-C{i % 10}" if name in STEERED else f"{'o' if i < 10 else 'v'}-C{i % 10}"
            axis.errorbar(x, [100 * g.value for g in gains], error, fmt=style, ms=5, lw=1, capsize=2, label=name)
        axis.axhline(0, color="#8a909c", lw=1)
        axis.set(title=split, xlabel="CPU seconds, training or more generation", xscale="log")
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_formatter("{x:.0f}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("improvement over the base [%]")
    axes[0].legend(frameon=False, fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
