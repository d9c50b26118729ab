"""Repair motions so that they obey dynamics, measure them before and after, write npz and BVH, and say what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from visviva.configs.motion import MotionRecipe
from visviva.data.manifest import output_folder
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.axes import Reading
from visviva.data.motions.bvh import write_bvh
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.reading import read_motion
from visviva.data.motions.resample import resampled
from visviva.errors import InputError
from visviva.eval.motion import changes
from visviva.eval.motion.changes import Change
from visviva.eval.motion.dynamics import skeleton
from visviva.eval.motion.measure import REST_POSE, against, check_rates, measure, without_rest_pose
from visviva.eval.run import provenance, write_json
from visviva.eval.score import Score
from visviva.models.reestimation.joints import NAMES, PARENTS, h36m
from visviva.models.reestimation.reestimator import Reestimator
from visviva.pipelines.motion.evaluate import collect, distinct, reasons, reference_of, refused, stems, tally
from visviva.pipelines.motion.fuse import reestimated
from visviva.pipelines.motion.lift import in_two, learned, lifted
from visviva.pipelines.motion.repair import lifted_spread, repaired

FORMAT = 1


def reestimate(recipe: MotionRecipe) -> Path:
    """Re-estimate the recipe's motions; returns the folder that holds them, metrics.json and report.html.

    Raises:
        InputError: no file is given, or none can be re-estimated, with every one's reason.
    """
    files = collect(recipe.files, recipe.action)
    names, output = distinct(files), output_folder(recipe.output)
    keep([*files, *references(recipe)], [path for stem in stems(files) for path in written(output / stem)])
    done: dict[str, Change] = {}
    failures: dict[str, str] = {}
    bar = tqdm(files, desc="motions", disable=len(files) < 2)
    for file, name, stem in zip(bar, names, stems(files), strict=True):
        try:
            done[name] = changed(file, recipe, output / stem)
        except InputError as error:
            failures[name] = str(error)
    if not done:
        raise refused(failures, "re-estimated")
    about = {"recipe": recipe.model_dump()}
    rows = [
        {"file": str(f), **(done[n].to_json() if n in done else {"reason": failures[n]})}
        for f, n in zip(files, names, strict=True)
    ]
    write_json(output / "metrics.json", {"format": FORMAT, "motions": rows, **about, "made_with": provenance()})
    changes.write(output / "report.html", done, failures, about, recipe.shown)
    _say(output, done, failures)
    return output


def written(target: Path) -> tuple[Path, Path]:
    """Return the files that a re-estimation writes: .npz and .bvh."""
    return target.with_name(f"{target.name}.npz"), target.with_name(f"{target.name}.bvh")


def references(recipe: MotionRecipe) -> list[Path]:
    """Return the recipe's reference, or the files of its folder."""
    reference = Path(recipe.reference)
    return [] if not recipe.reference else sorted(reference.iterdir()) if reference.is_dir() else [reference]


def keep(given: Sequence[Path], targets: Sequence[Path]) -> None:
    """Raise an `InputError` if an input or a reference would be written over."""
    kept = {path.resolve() for path in given}
    for target in targets:
        if target.resolve() in kept:
            raise InputError(f"{target}: is an input or a reference, and would be written over; give another --output")


def changed(file: Path, recipe: MotionRecipe, target: Path) -> Change:
    """Re-estimate one file, write it to ``target`` with .npz and .bvh behind, and measure it before and after."""
    reading, flat = _reading(recipe), in_two(file)
    true = reference_of(file, recipe, replace(reading, fps=None) if flat else reading)  # fps is of the poses then
    given = seen(file, recipe)
    if true is not None and not flat:
        check_rates(given.motion, true)
    before, after, note = one(given, recipe)
    errors: list[dict[str, Score]] = [{}, {}]
    if true is not None:
        true = comparable(true, before, flat)
        errors = [against(side, true) for side in (before, after)]
    for path, write in zip(written(target), (write_npz, write_bvh), strict=True):
        write(path, after)
    sides = [measure(side, recipe.floor, recipe.mass) for side in (before, after)]
    scored = [replace(side, scores=side.scores | more) for side, more in zip(sides, errors, strict=True)]
    return Change(scored[0], scored[1], note)


def comparable(true: HumanMotion, before: HumanMotion, flat: bool = False) -> HumanMotion:
    """Return a reference in the frames and joints of what is re-estimated; ``flat``: lifted from 2D, and at its frame rate."""
    if REST_POSE in before.notes:
        true = true.cut(1, len(true))
    if before.names == NAMES and not set(NAMES) <= set(true.names):
        name, joints = skeleton(true)
        true = HumanMotion(h36m(joints, name).float(), NAMES, PARENTS, true.fps, source=true.source)
    other = abs(true.fps / before.fps - 1) > 1e-3
    return resampled(true, before.fps) if flat and other else true


def _reading(recipe: MotionRecipe) -> Reading:
    return Reading(recipe.units, recipe.stature, recipe.up, recipe.hand, recipe.frame_rate)


@dataclass(frozen=True)
class Seen:
    """What a file shows: a motion, and if it was lifted from 2D how sure its joints are and how far each may be wrong [m]."""

    motion: HumanMotion
    model: Reestimator | None
    confidence: Tensor | None = None
    spread: Tensor | None = None


def seen(file: Path, recipe: MotionRecipe) -> Seen:
    """Read (or lift) one file, with the network if the method wants one."""
    flat = in_two(file)
    if recipe.method == "fused" and not flat:
        raise InputError(f"{file}: --method fused is for 2D poses, which are lifted; joints in 3D take analytic or learned")
    if recipe.method != "analytic" and recipe.noise is not None:
        raise InputError(f"--noise is of the method analytic; {recipe.method} knows its own")
    if not flat:
        model = Reestimator.load(recipe.weights) if recipe.method == "learned" else None
        return Seen(without_rest_pose(read_motion(file, _reading(recipe))), model)
    model = Reestimator.load(recipe.weights)
    motion, confidence = lifted(file, recipe, model)
    _check_floor(file, recipe.floor, motion)
    return Seen(motion, model, confidence, lifted_spread(motion, recipe.noise))


def one(given: Seen, recipe: MotionRecipe) -> tuple[HumanMotion, HumanMotion, str]:
    """Re-estimate what was read: before, after, and how."""
    motion, model = given.motion, given.model
    if recipe.method == "fused" and model is not None:
        after = reestimated(motion, model, mass=recipe.mass, floor=recipe.floor, steps=recipe.steps)
        return motion, after, after.notes[-1]
    if recipe.method == "learned" and model is not None:
        before, after = learned(motion, model, given.confidence is not None)
        return before, after, after.notes[-1]
    found = repaired(
        motion,
        noise=recipe.noise,
        spread=given.spread,
        confidence=given.confidence,
        mass=recipe.mass,
        floor=recipe.floor,
        steps=recipe.steps,
    )
    terms = ", ".join(f"{k} {found.estimate.before[k]:.3g} to {v:.3g}" for k, v in found.estimate.after.items())
    return found.before, found.after, f"{found.after.notes[-1]}. Terms of the objective: {terms}."


def _check_floor(file: Path, floor: float | None, motion: HumanMotion) -> None:
    """Raise an `InputError` for a floor above a lifted person's hip, who is seen from the origin."""
    hip = float(motion.positions[:, 0, 2].min())
    if floor is not None and floor > hip:
        raise InputError(
            f"{file}: a floor at {floor:g} m, the lifted person's hip at {hip:.2f} m; heights of 2D poses "
            "count from the camera, whose floor is as far below 0 as it stands high"
        )


def _say(output: Path, done: dict[str, Change], failures: dict[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=max(120, Console().width))
    for name, change in done.items():
        shown = Table(box=None, pad_edge=False, header_style="")
        for head in (name, "before", "after", "change"):
            shown.add_column(head.replace("[", "\\["), justify="left" if head == name else "right")
        for row in changes.table(change):
            shown.add_row(*(cell.replace("[", "\\[") for cell in row))
        console.print(shown)
        if change.verdict:
            console.print(change.verdict, markup=False)
    for reason in reasons(failures):
        console.print(f"not re-estimated: {reason}", markup=False)
    console.print(
        f"written: {output / 'report.html'}, {output / 'metrics.json'}, .npz and .bvh of each motion (metres, z up)",
        markup=False,
    )
    for line in tally(failures, len(done) + len(failures), "re-estimated"):
        console.print(line, markup=False)
