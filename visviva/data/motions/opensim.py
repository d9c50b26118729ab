"""Motions and forces of OpenSim: .mot and .sto tables, their columns as coordinates of a model and as forces of plates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.bodies.osim import OsimModel
from visviva.data.bodies.xml import read_xml
from visviva.data.motions.text import numbers, text_of
from visviva.errors import InputError, closest


@dataclass(frozen=True)
class Table:
    """A table of OpenSim.

    Attributes:
        source: the file.
        names: of the columns without time, n of them.
        time: (T,) [s], growing.
        values: (T, n), as the file has them.
        degrees: whether its angles are in degrees.
    """

    source: str
    names: tuple[str, ...]
    time: Float[Tensor, " t"]
    values: Float[Tensor, "t n"]
    degrees: bool

    def column(self, name: str) -> Float[Tensor, " t"]:
        """Return a column; one that is not there is an `InputError`."""
        if name not in self.names:
            raise InputError(f"{self.source}: no column {name!r}{closest(name, self.names)}; it has {', '.join(self.names)}")
        return self.values[:, self.names.index(name)]

    def at(self, time: Float[Tensor, " s"]) -> Table:
        """Return the table at other times, between its rows on straight lines; up to one interval of rows outside, its end row.

        Raises:
            InputError: a time farther outside: rows that were not recorded are not made up.
        """
        own, wanted = self.time.numpy(), time.double().numpy()
        _covered(self.source, own, wanted)
        rows = np.stack([np.interp(wanted, own, column) for column in self.values.T.numpy()], -1)
        return replace(self, time=time.double(), values=torch.from_numpy(rows))


def _covered(source: str, own: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    """Refuse wanted times that lie outside a table's by more than the interval of its rows there."""
    steps = np.diff(own) if len(own) > 1 else np.zeros(1)
    before, after = 1.001 * steps[0], 1.001 * steps[-1]  # times are rounded
    inside = (wanted >= own[0] - before) & (wanted <= own[-1] + after)
    if not inside.all():
        raise InputError(
            f"{source}: its rows are from {own[0]:g} to {own[-1]:g} s, wanted are {wanted.min():g} to {wanted.max():g} s "
            f"({int((~inside).sum())} of {inside.size} times outside); cut the motion to the rows' time, or give forces that "
            "cover it"
        )


def read_table(path: str | Path) -> Table:
    """Return the table of a .mot or .sto file: a header up to ``endheader``, a line of labels, rows of numbers.

    Angles are in radians unless the header has ``inDegrees=yes``, or is SIMM's, which has no version.

    Raises:
        InputError: a file that is missing, empty, no text or too large; no header or labels; rows and columns that are not as
            many as it says; what is no number; no time, or one that does not grow.

    Example::

        read_table("ik.mot").column("knee_angle_r")
    """
    path = Path(path)
    head, ended, rest = text_of(path).partition("endheader")
    rows = [line for line in rest.splitlines()[1:] if line.strip()]
    if not ended or not rows:
        raise InputError(f"{path}: no 'endheader' with a table after it; this is no .mot or .sto file")
    said = {"indegrees": "no" if "version=" in head else "yes"}  # SIMM's files have no version, and degrees
    said |= {k.strip().lower(): v.strip() for k, _, v in (line.partition("=") for line in head.splitlines()) if v}
    labels = rows[0].split("\t") if "\t" in rows[0] else rows[0].split()
    labels = [label.strip() for label in labels if label.strip()]
    if len(labels) < 2 or labels[0].lower() != "time":
        raise InputError(f"{path}: the labels begin with {labels[:2]}; the first column is time, with others after it")
    found = [len(row.split()) for row in rows[1:]]
    odd = [number for number, count in enumerate(found, 1) if count != len(labels)]
    if odd:
        raise InputError(f"{path}: row {odd[0]} has {found[odd[0] - 1]} numbers for {len(labels)} labels; it is cut or damaged")
    for key, count in (
        ("nRows", len(found)),
        ("datarows", len(found)),
        ("nColumns", len(labels)),
        ("datacolumns", len(labels)),
    ):
        written = said.get(key.lower(), str(count))
        if written != str(count):
            raise InputError(f"{path}: it says {key}={written}, but has {count}; the file is cut or damaged")
    values = torch.from_numpy(numbers("\n".join(rows[1:]), str(path)).reshape(len(found), len(labels)))
    time = values[:, 0]
    if len(time) < 2 or not bool((time.diff() > 0).all()):
        raise InputError(f"{path}: {len(time)} rows whose times do not grow; two or more with growing times are wanted")
    return Table(str(path), tuple(labels[1:]), time, values[:, 1:], said["indegrees"].lower() == "yes")


def coordinates(
    table: Table, model: OsimModel, cutoff: float | None = None
) -> tuple[Float[Tensor, "t nc"], Float[Tensor, "t nc"], Float[Tensor, "t nc"]]:
    """Return a model's coordinates over time, their velocities and accelerations, from a table of them.

    Columns are found by the coordinate's name, also in paths as state files have them; a coordinate without a column keeps its
    default. The rows are filtered (Butterworth of third order, forwards and backwards, half the rows mirrored through each end;
    rows of uneven times are put on even ones first) and differentiated as a natural spline of fifth degree through them, as
    OpenSim's inverse dynamics tool does.

    Args:
        table: of coordinates.
        model: whose they are.
        cutoff: of the filter [Hz]; None: not filtered.

    Raises:
        InputError: no column of the model's, values that are not finite, too few rows, a cut-off that the rate does not hold.

    Example::

        c, v, a = coordinates(read_table("ik.mot"), model, cutoff=6.0)
    """
    names = model.coupled.names
    columns = {_short(name): k for k, name in reversed(list(enumerate(table.names))) if not name.endswith("/speed")}
    missing = [name for name in names if name not in columns]
    if len(missing) == len(names):
        raise InputError(f"{table.source}: none of the model's coordinates ({', '.join(names)}) is in it")
    if len(table.time) < 6:
        raise InputError(f"{table.source}: {len(table.time)} rows; six or more are wanted for velocities and accelerations")
    rows = np.stack([_values(table, model, name, columns) for name in names], -1)
    time = table.time.numpy()
    within = time
    if cutoff is not None:
        rows, time = _filtered(rows, time, cutoff, table.source)
    curve = _curve(time, rows)
    c, v, a = (torch.from_numpy(np.ascontiguousarray(curve(within, order))) for order in (0, 1, 2))
    return c, v, a


def _curve(time: NDArray, rows: NDArray) -> Any:
    """The natural spline of fifth degree through rows."""
    from scipy.interpolate import make_interp_spline

    ends = [(3, np.zeros(rows.shape[-1])), (4, np.zeros(rows.shape[-1]))]
    return make_interp_spline(time, rows, k=5, bc_type=(ends, ends))


def _short(name: str) -> str:
    """The coordinate of a column such as ``/jointset/hip_r/hip_flexion_r/value``."""
    parts = name.split("/")
    return parts[-2] if len(parts) > 2 and parts[-1] == "value" else parts[-1]


def _values(table: Table, model: OsimModel, name: str, columns: dict[str, int]) -> NDArray[np.float64]:
    if name not in columns:
        return np.full(len(table.time), model.defaults[name])
    values = table.values[:, columns[name]].numpy()
    if not np.isfinite(values).all():
        raise InputError(
            f"{table.source}: {name} is not finite in {int((~np.isfinite(values)).sum())} rows; fill the gaps first"
        )
    return np.deg2rad(values) if table.degrees and name in model.rotational else values


def _filtered(rows: NDArray, time: NDArray, cutoff: float, source: str) -> tuple[NDArray, NDArray]:
    """Filtered rows and their times, with half as many again mirrored through the first and through the last."""
    from scipy.signal import butter, sosfiltfilt

    step = np.diff(time)
    if step.max() > 2 * step.min():
        raise InputError(f"{source}: steps of {step.min():g} to {step.max():g} s; fill the gaps before filtering")
    if step.max() - step.min() > 1e-6:  # rounded times: go on with the shortest step, on the spline
        even = time[0] + step.min() * np.arange(1 + int((time[-1] - time[0]) / step.min() + 1e-9))
        rows, time = _curve(time, rows)(even), even
    rate = 1 / float(np.diff(time).mean())
    if not 0 < cutoff < rate / 2:
        raise InputError(f"a cut-off of {cutoff} Hz for {rate:g} rows a second; it lies between 0 and {rate / 2:g} Hz")
    pad = len(rows) // 2
    wide = np.concatenate([2 * rows[0] - rows[pad:0:-1], rows, 2 * rows[-1] - rows[-2 : -pad - 2 : -1]])
    around = time[0] + np.arange(-pad, len(rows) + pad) / rate
    return sosfiltfilt(butter(3, cutoff, fs=rate, output="sos"), wide, axis=0), around


@dataclass(frozen=True)
class GroundForce:
    """What one plate's columns say: force, where it acts, its moment there, (T, 3) each, in the model's world [N, m, N m]."""

    name: str
    force: Float[Tensor, "t 3"]
    point: Float[Tensor, "t 3"]
    moment: Float[Tensor, "t 3"]


def ground_forces(table: Table) -> tuple[GroundForce, ...]:
    """Return the forces of a table, one for each set of columns such as ``ground_force_1_vx ... px ...``, in the file's order.

    Moments are in columns ``..._mx`` or in those of the torque (``ground_torque_1_x``); without any they are 0. Take a set by
    its name: how many there are, and in which order, is the file's own. Which foot stands on which plate is not in a .mot file:
    an ExternalLoads file says it, and `external_wrench` reads that.

    Raises:
        InputError: no such columns, or some of a set missing.

    Example::

        plates = {plate.name: plate for plate in ground_forces(read_table("grf.mot"))}
        plates["ground_force_1"].force  # (T, 3) N
    """
    found = []
    for name in table.names:
        if not name.endswith("vx"):
            continue
        stem = name[:-2]
        force, point = (torch.stack([table.column(f"{stem}{kind}{axis}") for axis in "xyz"], -1) for kind in "vp")
        moment = torch.zeros_like(force)
        for other in (f"{stem}m", stem.replace("force", "torque")):
            if f"{other}x" in table.names:
                moment = torch.stack([table.column(f"{other}{axis}") for axis in "xyz"], -1)
        found.append(GroundForce(stem.rstrip("_"), force, point, moment))
    if not found:
        raise InputError(
            f"{table.source}: no columns of forces (ending in vx, vy, vz, px, ...); it has {', '.join(table.names)}"
        )
    return tuple(found)


def external_wrench(
    path: str | Path, model: OsimModel, c: Float[Tensor, "t nc"], time: Float[Tensor, " t"]
) -> Float[Tensor, "t n 6"]:
    """Return what inverse dynamics takes for the loads of an OpenSim ExternalLoads file.

    Args:
        path: of the .xml file; its data file is looked for beside it.
        model: that the loads act on.
        c: coordinates at the times.
        time: (T,) [s]; the data are taken between their rows on straight lines.

    Raises:
        InputError: no such file, forces or points that are not given in the ground, bodies or columns that are not there, times
            that the data do not cover.

    Example::

        tau = model.coupled.inverse_dynamics(c, v, a, external_wrench("loads.xml", model, c, table.time))
    """
    path = Path(path)
    root = read_xml(path)
    forces = [force for force in root.iter("ExternalForce") if (force.findtext("isDisabled") or "").strip() != "true"]
    data = (root.findtext(".//datafile") or "").strip()
    if not forces or not data:
        raise InputError(f"{path}: no ExternalForce with a datafile in it; this is no file of external loads")
    table = read_table(path.parent / data).at(time)
    return torch.stack([_load(path, force, table, model, c) for force in forces]).sum(0)


def _load(path: Path, force: Element, table: Table, model: OsimModel, c: Tensor) -> Tensor:
    """What one force of a file of external loads does."""
    said = {key: (force.findtext(key) or "").strip() for key in LOAD}
    if {said["force_expressed_in_body"], said["point_expressed_in_body"]} - {"ground", "/ground"}:
        raise InputError(f"{path}: {force.get('name')} is not given in the ground, which is not covered")

    def columns(stem: str) -> Tensor:
        return torch.stack([table.column(f"{stem}{axis}") for axis in "xyz"], -1)

    if not said["force_identifier"] or not said["point_identifier"]:
        raise InputError(f"{path}: {force.get('name')} has no columns of a force at a point, which is what is covered")
    moment = columns(said["torque_identifier"]) if said["torque_identifier"] else None
    body = said["applied_to_body"].split("/")[-1]
    return model.coupled.wrench(c, body, columns(said["force_identifier"]), columns(said["point_identifier"]), moment)


LOAD = (
    *("applied_to_body", "force_expressed_in_body", "point_expressed_in_body"),
    *("force_identifier", "point_identifier", "torque_identifier"),
)
"""What is read of an ExternalForce."""
