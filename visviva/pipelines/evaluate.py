"""Evaluate clips: against ground truth the five NewtonBench metrics, without it trajectories, laws and gravity; one report.

Predicted masks of clips with ground truth come from `visviva.models.probes.masks.track_masks`, which follows the true
first-frame masks through the clip. The clips of a data set that has ground truth are tracked in the same way and measured
against their own masks: that is the noise floor of the measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from visviva.configs.evaluate import EvaluateRecipe
from visviva.data.clip import Clip
from visviva.data.files import whole
from visviva.data.manifest import output_folder
from visviva.errors import InputError
from visviva.eval import plots, recording_report, report
from visviva.eval.benchmarks.newtonbench import penalised
from visviva.eval.collection import Item, collect, labels
from visviva.eval.comparison import compare
from visviva.eval.laws import read_laws
from visviva.eval.newtonbench import ClipScore, score_clip
from visviva.eval.pictures import pixels
from visviva.eval.recording import Recording, Settings, measure_recording
from visviva.eval.run import Picture, Run, write_json
from visviva.models.probes.masks import track_masks


def run(recipe: EvaluateRecipe) -> Path:
    """Evaluate the recipe's clips and return the folder that holds metrics.json, report.html and plots.

    Example::

        from visviva.configs.evaluate import EvaluateRecipe
        from visviva.pipelines import evaluate

        folder = evaluate.run(EvaluateRecipe(clips=["throw.mp4"], object_size=0.067))
    """
    with one_thread():
        return _benchmarks(recipe) if recipe.benchmark else _run(recipe)


def _benchmarks(recipe: EvaluateRecipe) -> Path:
    """Run the recipe's public benchmarks and write benchmarks.json and report.html."""
    from visviva.eval import benchmarks

    statistics = {"resamples": recipe.resamples, "seed": recipe.seed, "level": recipe.level}
    judge = benchmarks.judge.load(recipe.judge) if recipe.judge else None
    names = ("clips", "reference", "prompts", "encoder", "experiment", "codec", "where", "limit")
    inputs = benchmarks.Inputs(**{name: getattr(recipe, name) for name in names}, judge=judge, statistics=statistics)
    output = output_folder(recipe.output)
    results = benchmarks.run_all(recipe.benchmark, inputs)
    about = {"recipe": recipe.model_dump()}
    write_json(output / "benchmarks.json", benchmarks.page.content(results, about))
    benchmarks.page.write(output / "report.html", results, about)
    failures = [row.failure for result in results for row in result.clips]
    if failures and all(failures):
        raise InputError(f"{failures[0]} (no clip could be scored: {output / 'benchmarks.json'} says why)")
    console = Console(highlight=False, soft_wrap=True)
    console.print(benchmarks.page.lead(results), markup=False)
    console.print(f"written: {output / 'report.html'}, {output / 'benchmarks.json'}", markup=False)
    return output


def _run(recipe: EvaluateRecipe) -> Path:
    items = collect(recipe.clips, recipe.reference, recipe.where, recipe.limit)
    before = Run.read(recipe.baseline) if recipe.baseline else None
    output = output_folder(recipe.output)
    scored = [item for item in items if item.true is not None]
    scores = [score(item) for item in tqdm(scored, desc="clips against truth", disable=not scored)]
    settings = recording_settings(recipe)
    free = [item for item in items if item.true is None]
    results = [measure_recording(item.path, settings, item.name) for item in tqdm(free, desc="recordings", disable=not free)]
    about = {"recipe": recipe.model_dump(), "reference": recipe.reference}
    evaluated = Run(recipe.name or _name(recipe), scores, about, pictures(scored, scores, recipe))
    statistics: dict[str, Any] = {"resamples": recipe.resamples, "seed": recipe.seed, "level": recipe.level}
    content = evaluated.to_json(**statistics) | {"recordings": [r.to_json() for r in results]}
    content["counts"]["recordings"] = len(results)
    content["counts"]["recordings_not_measured"] = sum(bool(r.reason) for r in results)
    if before is not None:
        content["comparison"] = [group.to_json() for group in compare(before, evaluated, **statistics)]
    write_json(output / "metrics.json", content)
    _plots(output / "plots", evaluated, results)
    report.evaluation(output / "report.html", evaluated, results, before, shown=recipe.shown, **statistics)
    _refuse_if_nothing_was_read(items, scores, results, output)
    _say(output, evaluated, results, content.get("comparison", []))
    return output


def evaluate_pairs(name: str, pairs: list[tuple[Clip, Clip]], *, maps: bool = True, about: dict[str, Any] | None = None) -> Run:
    """Score generated clips against their true clips, in memory, with pictures for `visviva.eval.report.compare`.

    Args:
        pairs: (generated clip, true clip with masks); the true clip's ``meta`` names scene, primitive and split.
        maps: also measure flow and residual maps for the report.

    Example::

        before = evaluate_pairs("base", list(zip(base_clips, true_clips)))
        after = evaluate_pairs("post-trained", list(zip(new_clips, true_clips)))
        report.compare("report.html", before, after)
    """
    scores, pictures = [], {}
    with one_thread():
        for k, (clip, true) in enumerate(tqdm(pairs, desc=f"measure {name}")):
            scores.append(score_pair(clip, true, str(k), labels({"file_name": str(k), **true.meta}, true.caption)))
            pictures[str(k)] = picture(clip, true, maps)
    return Run(name, scores, about or {}, pictures)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: clips are small, and threads that wait for each other cost more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score(item: Item) -> ClipScore:
    """Score one clip; a clip that cannot be read or compared, or whose truth cannot, keeps its place, with the reason."""
    if item.true is None:
        raise InputError(f"{item.key}: has no ground truth to be scored against")
    try:
        return score_pair(item.clip(), item.true(), item.key, item.labels)
    except InputError as error:
        return penalised(item, str(error))


@torch.no_grad()
def score_pair(clip: Clip, true: Clip, key: str, names: dict[str, Any]) -> ClipScore:
    """Track the true clip's first-frame masks through the clip and score them."""
    if true.masks is None:
        raise InputError(f"the true clip of {key!r} has no masks; simulate the reference with --arrays small or all")
    if not bool(clip.frames.isfinite().all()):
        raise InputError(f"{key}: the frames hold values that are not finite (NaN or infinity)")
    masks = tracked(clip.frames, true.masks)
    return score_clip(masks, true.masks, clip.fps, true.fps, key=key, **names)


def tracked(frames: Tensor, true: Tensor) -> Tensor:
    """Return the objects' masks in a clip's frames (T, N, H, W), bool, followed from the true masks of the first frame."""
    first = true[:1].float()
    if first.shape[-2:] != frames.shape[-2:]:
        first = functional.interpolate(first, size=frames.shape[-2:], mode="area")
    return track_masks(frames[None], (first > 0.5).float())[0] > 0.5


@torch.no_grad()
def picture(clip: Clip, true: Clip, maps: bool = True) -> Picture:
    """Return what a report shows of a clip and its true clip."""
    shown: dict[str, Tensor] = {}
    said = ""
    if maps and len(clip.frames) > 3:
        masks = None if true.masks is None else tracked(clip.frames, true.masks)
        reading = read_laws(clip.frames, clip.fps, masks)
        small = functional.interpolate(clip.frames, size=reading.flow.shape[-2:], mode="area")
        shown = {"flow": reading.flow, "frames": pixels(small)}
        shown |= {"field": reading.field} if reading.field is not None else {}
        shown |= {"evidence": reading.evidence} if reading.evidence is not None else {}
        said = ", ".join(f"{s.law.replace('_', ' ')} {s.value:.2g}" for s in reading.scores if s.valid)
    return Picture(pixels(clip.frames), _like(true, clip), shown, said)


def _like(true: Clip, clip: Clip) -> Tensor:
    """Return the true frames paired with the clip's by time, as bytes."""
    from visviva.eval.trajectory import aligned

    return pixels(true.frames[aligned(len(clip.frames), clip.fps, len(true.frames), true.fps)])


def recording_settings(recipe: EvaluateRecipe) -> Settings:
    """Return how recordings are measured."""
    names = (
        "metres_per_pixel",
        "scale_error",
        "object_size",
        "object_size_error",
        "time_scale",
        "timing_error",
        "motion",
        "ramp_angle",
        "ramp_angle_error",
        "level",
        "max_frames",
        "frame_rate",
        "laws",
    )
    return Settings(**{name: getattr(recipe, name) for name in names})


def _refuse_if_nothing_was_read(items: list[Item], scores: list[ClipScore], results: list[Recording], output: Path) -> None:
    """Raise where every clip failed; metrics.json and the report, which hold each one's reason, are written by then."""
    failures = [s.failure for s in scores if s.failure] + [r.reason for r in results if r.failed]
    if len(failures) == len(items):
        more = f" (and {len(failures) - 1} more clips failed: {output / 'metrics.json'})" if len(failures) > 1 else ""
        raise InputError(failures[0] + more)


def pictures(items: list[Item], scores: list[ClipScore], recipe: EvaluateRecipe) -> dict[str, Picture]:
    """Return by key what the report shows of the clips that are chosen for it."""
    by_key = {item.key: item for item in items}
    wanted = report.chosen([s for s in scores if not s.failure], recipe.shown)
    found = {}
    for chosen in wanted:
        item = by_key[chosen.key]
        if item.true is not None:
            found[chosen.key] = picture(item.clip(), item.true(), recipe.laws)
    return found


def _plots(folder: Path, evaluated: Run, results: list[Recording]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        f"{c.key}-motion": (plots.motion([(evaluated.name, c)]), 10.5, 2.4)
        for c in evaluated.clips
        if c.key in evaluated.pictures
    }
    short = [Path(r.name).stem for r in results]
    stems = {r.name: s if short.count(s) == 1 else r.name for r, s in zip(results, short, strict=True)}
    for result in results:
        drawn |= {f"{stems[result.name]}-{name}": figure for name, figure in recording_report.figures(result).items()}
    for name, (draw, width, height) in drawn.items():
        picture = plots.rendered(draw, width, height)[0]
        with whole(folder / f"{name.strip('/').replace('/', '-')}.png") as part:
            part.write_bytes(picture)


def _name(recipe: EvaluateRecipe) -> str:
    return Path(recipe.clips[0]).name or "clips"


def _say(output: Path, evaluated: Run, results: list[Recording], comparison: list[dict[str, Any]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for row in evaluated.table():
        if row.primitive == "all" or len({c.primitive for c in evaluated.clips}) == 1:
            told = ", ".join(f"{plots.METRIC[m]} {i.value:.3g}" for m, i in row.penalised.items() if m != "l2_pisa")
            console.print(f"{row.split or 'all'}: {row.asked} clips ({row.failed} failed): {told}", markup=False)
    for result in results:
        console.print(f"{result.name}: {result.sentence}", markup=False)
    for group in comparison:
        console.print(group["sentence"], markup=False)
    console.print(f"written: {output / 'report.html'}, {output / 'metrics.json'}", markup=False)
