"""Measure motion files: every file is read and measured by itself, failures keep their place with the reason; one report."""

from __future__ import annotations

from collections.abc import Sequence
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
        InputError: no file is given, or none can be measured; the first one's reason.
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
        first, more = next(iter(failures.values())), len(failures) - 1
        raise InputError(first + (f" (and {more} more file{'s' * (more > 1)} failed)" if more else ""))
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
    if not recipe.reference:
        return measured
    reference = Path(recipe.reference)
    if reference.is_dir():
        named = sorted(p for p in reference.iterdir() if p.stem == file.stem and p.suffix.lower() in SUFFIXES)
        if not named:
            raise InputError(f"{file}: the reference folder {recipe.reference!r} has no motion of the name {file.stem!r}")
        reference = named[0]
    errors = against(motion, read_motion(reference, reading))
    return replace(measured, scores=measured.scores | errors)


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
    for name, measured in list(found.items())[:shown]:
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


def _say(output: Path, found: dict[str, Measured], failures: dict[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=max(160, Console().width))
    scored = dict.fromkeys(key for measured in found.values() for key in measured.scores)
    for keys in (*TERMINAL, report.errors(scored)):
        if keys:
            console.print(_table(found, keys))
            console.print()
    for name, measured in found.items():
        console.print(f"{name}: {'; '.join(measured.motion.notes)}", markup=False)
    for reason in failures.values():
        console.print(f"not measured: {reason}", markup=False)
    console.print(f"written: {output / 'report.html'}, {output / 'metrics.json'}", markup=False)
