"""Measure motion files: every file is read and measured by itself, failures keep their place with the reason; one report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from visviva.configs.motion import MotionRecipe
from visviva.data.files import whole
from visviva.data.manifest import output_folder
from visviva.data.motions.axes import Reading
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.reading import SUFFIXES, read_motion
from visviva.errors import InputError
from visviva.eval.motion import report
from visviva.eval.motion.curves import curves
from visviva.eval.motion.measure import Measured, against, measure
from visviva.eval.motion.view import strip
from visviva.eval.plots import rendered
from visviva.eval.run import provenance, write_json

FORMAT = 1
TERMINAL = (
    ("support", "sliding", "skating_ratio", "penetrate", "float", "float_grounded", "phys_err", "contact"),
    ("jerk", "smoothness", "bone_change", "flight_gravity", "flight_spin", "ground_peak", "torque_peak"),
    ("el_violation", "el_linear", "el_angular"),
)
"""Scores that the terminal shows, in tables: all that the report has; metrics.json has more."""
FLOORS = {"flight_spin": "flight_spin_floor", "el_violation": "el_floor"}
"""Noise floors, in brackets behind what they belong to."""


def evaluate(recipe: MotionRecipe) -> Path:
    """Measure the recipe's motions and return the folder that holds metrics.json, report.html and plots.

    Raises:
        InputError: no file is given, or none can be measured, with every one's reason.
    """
    files = collect(recipe.files)
    names = distinct(files)
    output = output_folder(recipe.output)
    reading = Reading(recipe.units, recipe.stature, recipe.up, recipe.hand, recipe.frame_rate)
    found: dict[str, Measured] = {}
    failures: dict[str, str] = {}
    for file, name in zip(tqdm(files, desc="motions", disable=len(files) < 2), names, strict=True):
        try:
            found[name] = one(file, recipe, reading)
        except InputError as error:
            failures[name] = str(error)
    if not found:
        raise refused(failures, "measured")
    about = {"recipe": recipe.model_dump()}
    write_json(output / "metrics.json", content(files, names, found, failures, about))
    _plots(output / "plots", found, recipe.shown)
    report.write(output / "report.html", list(found.values()), list(found), failures, about, recipe.shown)
    _say(output, found, failures)
    return output


def one(file: Path, recipe: MotionRecipe, reading: Reading) -> Measured:
    """Read and measure one file, against its reference where the recipe names one."""
    motion = read_motion(file, reading)
    measured = measure(motion, recipe.floor, recipe.mass)
    true = reference_of(file, recipe, reading)
    if true is None:
        return measured
    found = replace(measured, scores=measured.scores | against(motion, true))
    if len(true) == len(motion):
        return found
    first = min(len(true), len(motion))
    cut = f"reference: of another length; the first {first} of {len(motion)} and {len(true)} frames are compared"
    return replace(found, motion=found.motion.noted(cut))


def reference_of(file: Path, recipe: MotionRecipe, reading: Reading) -> HumanMotion | None:
    """Return the motion that a file is compared with: the recipe's, or that of the same name in its folder; None without one.

    Raises:
        InputError: a folder without a motion of this name, or a reference that cannot be read.
    """
    if not recipe.reference:
        return None
    reference = Path(recipe.reference)
    if reference.is_dir():
        named = sorted(p for p in reference.iterdir() if p.stem == file.stem and p.suffix.lower() in SUFFIXES)
        if not named:
            raise InputError(f"{file}: the reference folder {recipe.reference!r} has no motion of the name {file.stem!r}")
        reference = named[0]
    return read_motion(reference, reading)


def collect(given: Sequence[str], action: str = "evaluate") -> list[Path]:
    """Return the motion files of paths and folders, each once, folders in the order of their names.

    Raises:
        InputError: nothing is given, or a folder holds no motion file.
    """
    if not given:
        raise InputError(f"no motion is given; name files or folders: visviva motion {action} walk.bvh")
    files: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{name}: the folder holds no motion file ({', '.join(SUFFIXES)})")
            files += inside
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def distinct(files: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where two are the same."""
    short = [file.name for file in files]
    return [s if short.count(s) == 1 else str(file) for s, file in zip(short, files, strict=True)]


def stems(files: Sequence[Path]) -> list[str]:
    """Return a name without suffix for what is written of each file, no two alike: longer by folder, suffix or number."""
    short = [str(Path(name).with_suffix("")).strip("/").replace("/", "-") for name in distinct(files)]
    found: list[str] = []
    for stem, file in zip(short, files, strict=True):
        name = stem if short.count(stem) == 1 else stem + file.suffix.replace(".", "-")
        more = (f"{name}-{k}" for k in itertools.count(2))
        found.append(next(n for n in itertools.chain([name], more) if n not in found))
    return found


def refused(failures: Mapping[str, str], done: str) -> InputError:
    """Return the error of a run in which every file failed: its reason, or every file's, one a line."""
    told = reasons(failures)
    return InputError(told[0] if len(told) == 1 else "\n  ".join([f"none of {len(told)} files could be {done}:", *told]))


def reasons(failures: Mapping[str, str]) -> list[str]:
    """Return why each file failed, with its name."""
    return [why if name in why else f"{name}: {why}" for name, why in failures.items()]


def tally(failures: Mapping[str, str], files: int, done: str) -> list[str]:
    """Return the last line of a run in which some files failed; none where all went well."""
    return [f"{len(failures)} of {files} files could not be {done}; the reasons are above"] if failures else []


def content(
    files: Sequence[Path], names: Sequence[str], found: dict[str, Measured], failures: dict[str, str], about: dict[str, Any]
) -> dict[str, Any]:
    """Return metrics.json: every file asked for, in order, with its scores or the reason why it has none."""
    rows = []
    for file, name in zip(files, names, strict=True):
        row: dict[str, Any] = {"file": str(file), "measured": name in found}
        rows.append(row | (found[name].to_json() if name in found else {"reason": failures[name]}))
    counts = {"files": len(files), "measured": len(found), "failed": len(failures)}
    return {"format": FORMAT, "counts": counts, "motions": rows, **about, "made_with": provenance()}


def _plots(folder: Path, found: dict[str, Measured], shown: int) -> None:
    drawn = list(found.items())[:shown]
    for name, measured in tqdm(drawn, desc="plots", disable=not drawn):
        stem = name.strip("/").replace("/", "-")
        for kind, draw in (("poses", strip(measured)), ("curves", curves(measured))):
            with whole(folder / f"{stem}-{kind}.png") as part:
                part.write_bytes(rendered(draw, 10.5, 2.4)[0])


def _table(found: dict[str, Measured], keys: Sequence[str]) -> Table:
    """Scores of all motions; a violation has its noise floor in brackets behind it."""
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("", no_wrap=True)
    units = {key: m.scores[key].unit for m in found.values() for key in keys if key in m.scores}
    for key in keys:
        head = key.replace("_", " ") + " (its floor)" * (key in FLOORS)
        table.add_column(f"{head}\n[{units[key].replace('body weights', 'weights')}]".replace("[", "\\["), justify="right")
    for name, measured in found.items():
        table.add_row(name.replace("[", "\\["), *(_cell(measured, key) for key in keys))
    return table


def _cell(measured: Measured, key: str) -> str:
    number, floor = (report.shown(measured.scores.get(k)) for k in (key, FLOORS.get(key, "")))
    return f"{number} ({floor})" if floor != "-" else number


def missing(measured: Measured, keys: Sequence[str]) -> str:
    """Return which of these scores a motion has no number for, by reason; nothing where it has all."""
    why: dict[str, list[str]] = {}
    for key in keys:
        score = measured.scores.get(key)
        if score is not None and not math.isfinite(score.value):
            why.setdefault(score.note, []).append(key.replace("_", " "))
    return "; ".join(f"no {', '.join(lost)}: {note}" for note, lost in why.items())


def _say(output: Path, found: dict[str, Measured], failures: dict[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=max(160, Console().width))
    scored = dict.fromkeys(key for measured in found.values() for key in measured.scores)
    tables = [*TERMINAL, report.errors(scored)]
    for keys in tables:
        if keys:
            console.print(_table(found, keys))
            console.print()
    for name, measured in found.items():
        console.print(f"{name}: {'; '.join(measured.motion.notes)}", markup=False)
    for name, measured in found.items():
        if lost := missing(measured, [key for keys in tables for key in keys]):
            console.print(f"{name}: {lost}", markup=False)
    for reason in reasons(failures):
        console.print(f"not measured: {reason}", markup=False)
    console.print(f"written: {output / 'report.html'}, {output / 'metrics.json'}", markup=False)
    for line in tally(failures, len(found) + len(failures), "measured"):
        console.print(line, markup=False)
