"""Tables of OpenSim: headers, labels, filtering and derivatives, forces, hostile files."""

from dataclasses import replace

import numpy as np
import osim_files as files
import pytest
import torch

from visviva.data.bodies import read_osim
from visviva.data.motions.opensim import coordinates, external_wrench, ground_forces, read_table
from visviva.errors import InputError


def table_text(columns, rate=100.0, count=101, degrees="no", **said):
    head = {"nRows": count, "nColumns": len(columns) + 1, "inDegrees": degrees} | said
    lines = ["Coordinates", "version=1", *(f"{k}={v}" for k, v in head.items()), "", "endheader", "\t".join(["time", *columns])]
    time = np.arange(count) / rate
    rows = np.stack([time, *(f(time) if callable(f) else np.full(count, float(f)) for f in columns.values())], -1)
    return "\n".join(lines + ["\t".join(f"{x:.17g}" for x in row) for row in rows]) + "\n"


@pytest.fixture
def table(tmp_path):
    def make(text):
        path = tmp_path / "table.mot"
        path.write_text(text)
        return read_table(path)

    return make


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.osim"
    path.write_text(files.model())
    return read_osim(path)


def test_headers_and_columns(table):
    found = table(table_text({"a": np.sin, "b": 2}, degrees="yes"))
    assert found.degrees
    assert found.names == ("a", "b")
    assert torch.allclose(found.column("a"), found.time.sin())
    with pytest.raises(InputError, match="no column 'c'"):
        found.column("c")
    old = table(table_text({"a": 1}).replace("nRows", "datarows").replace("nColumns", "datacolumns"))
    assert old.values.shape == (101, 1)
    simm = table(table_text({"a": 1}).replace("version=1\n", "").replace("inDegrees=no\n", ""))
    assert simm.degrees
    between = found.at(torch.tensor([0.005, 1.01], dtype=torch.float64))
    assert between.column("a")[0].item() == pytest.approx(np.sin(0.01) / 2)
    assert between.column("a")[1] == found.column("a")[-1]


@pytest.mark.parametrize("times", [(0.5, 1.02), (-0.011, 0.5), (5.0,), (float("nan"),)])
def test_times_that_the_rows_do_not_cover_are_refused(table, times):
    found = table(table_text({"a": np.sin}))
    said = rf"table\.mot: its rows are from 0 to 1 s, wanted are {min(times):g} to {max(times):g} s .* cut the motion"
    with pytest.raises(InputError, match=said):
        found.at(torch.tensor(times, dtype=torch.float64))
    kept = found.at(torch.tensor([-0.01, 1.01], dtype=torch.float64))
    assert torch.equal(kept.values, found.values[[0, -1]]), "within one interval the end row is kept"
    assert found.at(torch.zeros(0, dtype=torch.float64)).values.shape == (0, 1)


def test_a_byte_order_mark_is_no_part_of_a_table(table):
    assert table("\ufeff" + table_text({"a": 2})).names == ("a",)


def test_coordinates_have_exact_derivatives_and_keep_defaults(table, model):
    columns = {"knee": lambda t: np.rad2deg(np.sin(3 * t)), "tx": lambda t: t**2, "/jointset/hip/flexion/value": 30}
    found = table(table_text(columns | {"/jointset/hip/flexion/speed": 7}, degrees="yes"))
    c, v, a = coordinates(found, model)
    names = model.coupled.names
    inside, t = slice(5, -5), found.time
    knee, tx, flexion, ty = (names.index(n) for n in ("knee", "tx", "flexion", "ty"))
    assert torch.allclose(c[:, knee], (3 * t).sin())
    assert torch.allclose(v[inside, knee], 3 * (3 * t).cos()[inside], atol=1e-5)
    assert torch.allclose(a[inside, knee], -9 * (3 * t).sin()[inside], atol=1e-3)
    assert torch.allclose(c[:, tx], t.square())  # metres are no degrees
    assert torch.allclose(c[:, flexion], torch.full_like(t, np.pi / 6))
    assert c[:, ty].abs().max() == 0


def test_the_filter_halves_at_its_cutoff_and_keeps_what_is_slow(table, model):
    """Twice a Butterworth: 1/2 at the cut-off, nothing of what is far below changed, little of what is far above left."""
    gains = []
    for frequency in (0.5, 6.0, 24.0):
        c, _, _ = coordinates(
            table(table_text({"knee": lambda t, f=frequency: np.sin(2 * np.pi * f * t)}, count=401)), model, 6.0
        )
        gains.append(float(c[100:300, model.coupled.names.index("knee")].abs().max()))
    assert gains[0] == pytest.approx(1, abs=1e-3)
    assert gains[1] == pytest.approx(0.5, abs=0.01)
    assert gains[2] < 1e-3


def test_forces_of_plates(table):
    columns = {f"ground_force_{k}_{x}{a}": k for k in (1, 2) for x in "vp" for a in "xyz"} | {"ground_torque_2_y": 5}
    columns |= {f"ground_torque_2_{a}": 0 for a in "xz"}
    one, two = ground_forces(table(table_text(columns)))
    assert (one.name, two.name) == ("ground_force_1", "ground_force_2")
    assert one.force[0].tolist() == [1, 1, 1]
    assert one.moment[0].tolist() == [0, 0, 0]
    assert two.moment[0].tolist() == [0, 5, 0]
    with pytest.raises(InputError, match="no columns of forces"):
        ground_forces(table(table_text({"a": 1})))
    with pytest.raises(InputError, match="no column 'ground_force_1_vz'"):
        ground_forces(table(table_text({"ground_force_1_vx": 1, "ground_force_1_vy": 1})))


def loads(body="foot", frame="ground", name="ground_force_1"):
    return (
        "<OpenSimDocument><ExternalLoads name='l'><objects><ExternalForce name='one'><isDisabled> false </isDisabled>"
        f"<applied_to_body> {body} </applied_to_body><force_expressed_in_body> {frame} </force_expressed_in_body>"
        f"<point_expressed_in_body> ground </point_expressed_in_body><force_identifier> {name}_v </force_identifier>"
        f"<point_identifier> {name}_p </point_identifier><torque_identifier> {name}_m </torque_identifier></ExternalForce>"
        "</objects><datafile> table.mot </datafile></ExternalLoads></OpenSimDocument>"
    )


def test_files_of_external_loads(table, model, tmp_path):
    columns = {f"ground_force_1_{x}{a}": i + 3 * j for j, x in enumerate("vpm") for i, a in enumerate("xyz")}
    (force,) = ground_forces(table(table_text(columns)))
    c = torch.rand(101, len(model.coupled.names), dtype=torch.float64)
    path = tmp_path / "loads.xml"
    path.write_text(loads())
    time = torch.arange(101).double() / 100
    found = external_wrench(path, model, c, time)
    assert torch.allclose(found, model.coupled.wrench(c, "foot", force.force, force.point, force.moment))
    assert float(found.abs().max()) > 1
    for text, said in (
        (loads(body="hand"), "no link 'hand'"),
        (loads(frame="foot"), "one is not given in the ground"),
        (loads(name="grf"), "no column 'grf_mx'"),
        ("<ExternalLoads/>", "no file of external loads"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            external_wrench(path, model, c, time)
    path.write_text(loads())
    with pytest.raises(InputError, match=r"table\.mot: its rows are from 0 to 1 s, wanted are 0.5 to 1.5 s"):
        external_wrench(path, model, c, time + 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("time\ta\n0\t1\n", "no 'endheader'"),
        (table_text({"a": 1}, nRows=7), "it says nRows=7, but has 101"),
        (table_text({"a": 1}, nColumns=7), "it says nColumns=7, but has 2"),
        (table_text({"a": 1}).rstrip("\n")[:-1].rsplit("\t", 1)[0], "row 101 has 1 numbers for 2 labels"),
        (table_text({"a": 1}).replace("time\t", "frame\t"), "first column is time"),
        (table_text({"a": 1}).replace("\n1\t1", "\nx\t1"), "'x' is no number"),
        (table_text({"a": 1}, rate=-100.0), "times do not grow"),
        (table_text({"a": 1}, count=1), "times do not grow"),
    ],
)
def test_damaged_tables_are_refused(table, text, said):
    with pytest.raises(InputError, match=said):
        table(text)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"elbow": 1}, {}, "none of the model's coordinates"),
        ({"knee": lambda t: np.where(t > 0.5, np.nan, t)}, {}, "knee is not finite in 50 rows"),
        ({"knee": 0}, {"cutoff": 60.0}, "cut-off of 60.0 Hz"),
        ({"knee": 0}, {"cutoff": -6.0}, "cut-off of -6.0 Hz"),
    ],
)
def test_coordinates_that_cannot_be_used_are_refused(table, model, columns, options, said):
    with pytest.raises(InputError, match=said):
        coordinates(table(table_text(columns)), model, **options)


def test_short_and_holed_tables_are_refused(table, model):
    with pytest.raises(InputError, match="5 rows; six or more"):
        coordinates(table(table_text({"knee": 0}, count=5)), model)
    holed = "\n".join(line for line in table_text({"knee": 0}).split("\n") if not line.startswith("0.5"))
    count = sum("\t" in line for line in holed.split("\n")) - 1
    with pytest.raises(InputError, match=r"steps of 0\.01 to 0\.1"):
        coordinates(table(holed.replace("nRows=101", f"nRows={count}")), model, cutoff=6.0)


def test_rounded_times_change_nothing(table, model):
    """60 rows a second with times written to milliseconds: the motion comes out as from exact times."""
    exact = table(table_text({"knee": lambda t: np.sin(5 * t)}, rate=60.0, count=120))
    rounded = replace(exact, time=(exact.time * 1000).round() / 1000)
    rounded = replace(rounded, values=(5 * rounded.time).sin()[:, None])
    knee = model.coupled.names.index("knee")
    for one, other, tolerance in zip(*(coordinates(x, model, 6.0) for x in (exact, rounded)), (0.005, 0.03, 0.3), strict=True):
        assert torch.allclose(one[20:-20, knee], other[20:-20, knee], atol=tolerance)
