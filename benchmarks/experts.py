"""Do ProPhy's experts specialise on our primitives, and do clips obey mechanics better with them?

    python benchmarks/experts.py --output runs/experts --seeds 0 1

Trains the shipped model on simulated clips of five primitives: by flow matching alone (``sft``), with a physical branch whose
routing learns from flow matching alone (``experts``), and with one that is also told primitives and masks (``aligned``), all
for as many updates on the same clips in the same order; ``sft_seconds`` goes on until it has taken the CPU seconds of
``aligned``, and ``aligned_longer`` for half as many updates again, to read its routing alone; so ``wider``, with 24 experts
for tokens instead of 8. ``reward`` and ``reward_experts`` are trained by Newton's laws (`posttrain-newton`) instead, without
and with the branch.

Routing is read on held-out true clips at three noise levels: the first expert of each clip and of each token that an object
covers, held against the primitive, with primitives shuffled among clips as the control. All arms then generate the same
held-out clips from the same noise; five metrics against the true clip and two law residuals (OpenCV DIS) are compared by scene.
What is on disk is not made again. Writes ``results.json`` and ``results.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from newton_rewards import TEST, rows, scored, sets, slim
from steering import clock, clocked
from torch import Tensor

from visviva.configs.posttrain import Law, PosttrainRecipe, Probe
from visviva.configs.schema import load
from visviva.data.clip import Clip
from visviva.data.dataset import ClipDataset
from visviva.eval.comparison import compare
from visviva.eval.run import Run, merged, provenance, write_json
from visviva.eval.statistics import paired_bootstrap
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.wan import WanBackbone
from visviva.models.experts import on_tokens, parts_of, specialisation
from visviva.pipelines.posttrain.verifier import build, object_masks

NONE = {"experts.align": {"semantic": 0.0, "refinement": 0.0, "balance": 0.0}}
FEW = {"experts.refinement": 8}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("posttrain-sft", {}),
    "aligned": ("posttrain-experts", FEW),
    "experts": ("posttrain-experts", FEW | NONE),
    "sft_seconds": ("posttrain-sft", {}),
    "aligned_longer": ("posttrain-experts", FEW),
    "wider": ("posttrain-experts", {}),
    "reward": ("posttrain-newton", {}),
    "reward_experts": ("posttrain-newton", {}),
}
COMPARED = ("sft", "aligned", "experts", "wider", "sft_seconds", "reward", "reward_experts")
LEVELS = (0.25, 0.5, 0.75)
LAWS = ("constant_acceleration", "mass_conservation")


def main() -> None:
    """Simulate, train, read routing, generate, score, compare, write."""
    given = options()
    torch.set_num_threads(1)
    out = Path(given.output)
    train, tests = sets(out, given.train_clips, given.test_clips, given.test_seeds)
    base = judged(given, out / "base", tests, "")
    found: dict[str, dict[int, Run]] = {}
    routing: dict[str, dict[int, Any]] = {}
    for seed in given.seeds:
        for arm in given.arms:
            if given.report and not (out / f"{arm}-{seed}" / "seconds.json").is_file():
                continue
            lora = trained(given, arm, seed, train, out)
            if "experts" in arm or arm.startswith(("aligned", "wider")):
                routing.setdefault(arm, {})[seed] = routed(given.model, out / f"{arm}-{seed}", lora, tests)
            if arm in COMPARED:
                found.setdefault(arm, {})[seed] = judged(given, out / f"{arm}-{seed}", tests, lora)
        write(given, out, base, found, routing)
        print((out / "results.md").read_text(), flush=True)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/experts")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), help="some, to leave out the rest")
    parser.add_argument("--report", action="store_true", help="compare what was trained before, train nothing")
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--test-seeds", nargs=2, type=int, default=list(TEST.values()), help="of the two held-out sets")
    parser.add_argument("--train-clips", type=int, default=200)
    parser.add_argument("--test-clips", type=int, default=40, help="per split")
    parser.add_argument("--steps", type=int, default=4, help="sampler steps of generation")
    return parser.parse_args()


def trained(given: argparse.Namespace, arm: str, seed: int, train: Path, out: Path) -> str:
    """Train an arm, note its updates and CPU seconds, and return its adapters."""
    folder = out / f"{arm}-{seed}"
    note = folder / "seconds.json"
    if note.is_file():
        return str(json.loads(note.read_text())["lora"])
    goes_on = {"sft_seconds": "sft", "aligned_longer": "aligned"}
    updates, training = given.updates, out / f"{goes_on.get(arm, arm)}-{seed}" / "training"
    if arm == "aligned_longer":
        updates += updates // 2
    if arm == "sft_seconds":
        spent = json.loads((out / f"aligned-{seed}" / "seconds.json").read_text())["cpu_seconds"]
        updates = max(updates, round(spent * updates / sum(clock(training)[:updates])))
    name, changes = ARMS[arm]
    if arm == "reward_experts":  # the branch and its rates as in flow matching, without its losses on routing
        told = load(PosttrainRecipe, "posttrain-experts", **{"data.path": str(train)})
        changes = {
            "experts": told.experts.model_dump() | {"align": {}},
            "optimizer.groups": [g.model_dump() for g in told.optimizer.groups],
        }
    fixed: dict[str, Any] = {
        "data.path": str(train),
        "output": str(training),
        "max_steps": updates,
        "model.path": given.model,
        "sampler.steps": given.steps,
        "seed": seed,
        "validation.every": 0,
        "save_every": 50,
        "trackers": [],
        "data.cache": str(out / "cache"),
    }
    result = clocked(load(PosttrainRecipe, name, **fixed, **changes))
    lora = str(result.ema or result.weights)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"cpu_seconds": sum(clock(training)), "updates": updates, "lora": lora}))
    return lora


# ---------------------------------------------------------------------------------------------------------------------- routing


def routed(model: str, folder: Path, lora: str, tests: dict[str, Path]) -> dict[str, Any]:
    """Read where true held-out clips and their tokens are sent, with its control; kept as ``routing.json``."""
    kept = folder / "routing.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    backbone = WanBackbone.load(model)
    load_lora(backbone, lora)
    found: dict[str, Any] = {}
    for split, truth in tests.items():
        clips = ClipDataset(truth)
        names = sorted({row["primitive"] for row in clips.rows})
        kinds = torch.tensor([names.index(row["primitive"]) for row in clips.rows])
        sent = [sent_to(backbone, clips[i], i) for i in range(len(clips))]
        experts = torch.stack([clip for clip, _, _ in sent])
        tokens = torch.cat([t.flatten() for _, t, _ in sent])
        owner = torch.cat([torch.full((t.numel(),), i) for i, (_, t, _) in enumerate(sent)])
        whole = torch.cat([everything for _, _, everything in sent])
        levels = torch.cat([torch.arange(len(LEVELS))[:, None].expand(t.shape).flatten() for _, t, _ in sent])
        found[split] = {
            "clips": asdict(specialisation(experts, kinds)),
            "tokens": asdict(specialisation(tokens, kinds[owner], owner)),
            "tokens_by_level": {
                str(s): specialisation(tokens[levels == i], kinds[owner][levels == i], owner[levels == i], shuffles=0).purity
                for i, s in enumerate(LEVELS)
            },
            "clip_table": crossed(experts, kinds, names),
            "token_table": crossed(tokens, kinds[owner], names),
            "share_of_tokens": (torch.bincount(whole, minlength=16) / len(whole)).tolist(),
        }
    write_json(kept, found)
    return found


@torch.no_grad()
def sent_to(backbone: WanBackbone, clip: Clip, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first expert of a clip (), of its tokens that an object covers (levels, n), and of all tokens."""
    frames = clip.frames[None]
    condition = backbone.condition([clip.caption], frames[:, 0], frames=frames.shape[1], fps=clip.fps)
    clean = backbone.encode(frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
    objects = clip.masks.any(1, keepdim=True).float()  # type: ignore[union-attr]
    grid = (clean.shape[2], clean.shape[3] // 2, clean.shape[4] // 2)
    covered = on_tokens(objects, grid)[:, 0]
    parts, tokens = list(parts_of(backbone.transformer)), []
    for s in LEVELS:
        x = backbone.hold(s * noise + (1 - s) * clean, condition)
        backbone.velocity(x, torch.full((1,), s), condition)
        tokens.append(parts[-1].refinement.logits[0].argmax(-1))
    all_tokens = torch.stack(tokens)
    return parts[0].semantic.weights[0].argmax(), all_tokens[:, covered], all_tokens.flatten()


def crossed(chosen: Tensor, kinds: Tensor, names: list[str]) -> dict[str, list[int]]:
    """Return how often each expert is the first one of each primitive."""
    return {name: torch.bincount(chosen[kinds == k], minlength=16).tolist() for k, name in enumerate(names)}


# ----------------------------------------------------------------------------------------------------------------------- clips


def judged(given: argparse.Namespace, folder: Path, tests: dict[str, Path], lora: str) -> Run:
    """Generate the held-out clips and score them; law residuals are kept beside as ``laws.json``."""
    run = scored(given, folder, tests, lora)
    if not (folder / "laws.json").is_file():
        write_json(folder / "laws.json", {s: list(residuals(given.model, folder / s, truth)) for s, truth in tests.items()})
    return run


def residuals(model: str, folder: Path, truth: Path) -> Iterator[list[Any]]:
    """Yield scene, law residuals (None where a law says nothing) and motion energy of each generated clip."""
    made, true = ClipDataset(folder), ClipDataset(truth)
    scenes = {str(row["scene"]): i for i, row in enumerate(true.rows)}
    vae = WanBackbone.load(model).vae
    verifier = build([Law(name=name) for name in LAWS], Probe(flow="dis"), vae, allow_trivial=True)
    for i, row in enumerate(made.rows):
        clip, real = made[i], true[scenes[str(row["scene"])]]
        fps, known = torch.tensor([clip.fps]), real.masks[None].float()  # type: ignore[index]
        reference = verifier.measure(real.frames[None], fps, masks=known)
        masks = object_masks("track", clip.frames[None], known)
        contact = None if real.contact is None else real.contact[None]
        verdict = verifier.score(clip.frames[None], fps, masks=masks, contact=contact, reference=reference)
        told = [verdict.residuals[name] for name in LAWS]
        values = [float(r.value) if bool(r.valid) else None for r in told]
        yield [str(row["scene"]), *values, float(verdict.diagnostics["motion_energy"])]


def laws(out: Path, before: str, after: str, seeds: list[int]) -> dict[str, Any]:
    """Compare residuals of two arms by scene and seed, where both could be measured."""
    found: dict[str, Any] = {}
    read = lambda arm, seed: json.loads((out / (arm if arm == "base" else f"{arm}-{seed}") / "laws.json").read_text())  # noqa: E731
    for split in TEST:
        for k, name in enumerate([*LAWS, "motion_energy"], 1):
            pairs = [
                (a[k], b[k], a[0], seed)
                for seed in seeds
                for a in read(before, seed)[split]
                for b in read(after, seed)[split]
                if a[0] == b[0] and a[k] is not None and b[k] is not None
            ]
            x, y, scenes, by = zip(*pairs, strict=True)
            told = paired_bootstrap(x, y, scenes, by if len(set(by)) > 1 else None, metric=name)
            gain = told.improvement
            found[f"{split}/{name}"] = {
                "before": told.before.value,
                "after": told.after.value,
                "difference": [told.difference.value, told.difference.low, told.difference.high],
                "improvement": [gain.value, gain.low, gain.high],
                "pairs": len(pairs),
            }
    return found


# ---------------------------------------------------------------------------------------------------------------------- report


def write(
    given: argparse.Namespace, out: Path, base: Run, found: dict[str, dict[int, Run]], routing: dict[str, dict[int, Any]]
) -> None:
    """Compare all arms, write numbers and tables."""
    pairs = [("base", arm) for arm in COMPARED]
    pairs += [
        ("sft", "wider"),
        ("sft", "experts"),
        ("sft", "aligned"),
        ("sft_seconds", "aligned"),
        ("sft_seconds", "experts"),
        ("experts", "aligned"),
        ("sft", "reward"),
        ("reward", "reward_experts"),
    ]
    results: dict[str, Any] = {}
    for before, after in pairs:
        seeds = [s for s in found.get(after, {}) if before == "base" or s in found.get(before, {})]
        if not seeds:
            continue
        left = base if before == "base" else merged(before, {s: found[before][s] for s in seeds})
        groups = [g for g in compare(left, merged(after, {s: found[after][s] for s in seeds})) if g.primitive == "all"]
        told = {"seeds": seeds, "five": [slim(g) for g in groups], "laws": laws(out, before, after, seeds)}
        results[f"{after} over {before}"] = told
    notes = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("*/seconds.json"))}
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "threads": 1},
        "spent": {name: {k: v for k, v in note.items() if k != "lora"} for name, note in notes.items()},
        "routing": routing,
        "comparisons": results,
        "clips": rows(base, {arm: merged(arm, of) for arm, of in found.items()}),
        "train_fingerprint": ClipDataset(out / "train").fingerprint,
    }
    write_json(out / "results.json", content)
    (out / "results.md").write_text(routing_table(routing) + "\n" + clip_table(results))


def routing_table(routing: dict[str, dict[int, Any]]) -> str:
    """Return purity and information with their controls, a row for each arm, seed, split and kind of expert."""
    lines = [
        "| arm | seed | split | experts per | purity | shuffled | one to one | bits | shuffled | of |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, of in routing.items():
        for seed, splits in of.items():
            for split, told in splits.items():
                for kind in ("clips", "tokens"):
                    s = told[kind]
                    lines.append(
                        f"| {arm} | {seed} | {split} | {kind[:-1]} | {s['purity']:.3f} | {s['shuffled_purity']:.3f} | "
                        f"{s['assigned']:.3f} | {s['bits']:.2f} | {s['shuffled_bits']:.2f} | {s['entropy']:.2f} |"
                    )
    return "\n".join(lines) + "\n"


def clip_table(results: dict[str, Any]) -> str:
    """Return improvements [%] with 95 % intervals: five metrics, and each law's residual."""
    told = lambda v, low, high: f"{100 * v:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"  # noqa: E731
    lines = [
        "| | seeds | five metrics, ID | OOD | " + " | ".join(f"{n} {s}" for n in LAWS for s in TEST) + " |",
        "|---" * 8 + "|",
    ]
    for name, found in results.items():
        five = [told(*g["improvement"].values()) for g in found["five"]]
        law = [told(*found["laws"][f"{s}/{n}"]["improvement"]) for n in LAWS for s in TEST]
        lines.append(f"| {name} | {len(found['seeds'])} | " + " | ".join([*five, *law]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
