"""A motion measured by itself: what frozen, noisy, floating and sliding motions get; real files; the report."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visviva.data.motions import HumanMotion, read_motion
from visviva.data.motions.amass import NAMES, OFFSETS, PARENTS
from visviva.data.motions.axes import Reading, upright
from visviva.data.motions.bvh import about
from visviva.data.motions.forces import read_forces
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.eval.motion import changes, contact, report
from visviva.eval.motion.curves import curves
from visviva.eval.motion.measure import against, measure, without_rest_pose
from visviva.eval.motion.view import animated
from visviva.eval.plots import LIGHT

FPS = 30.0


def squat(frames=60, depth=0.6, **changes):
    """A person who bends the knees and rises, feet on the spot: (T, 24, 3), z up, the soles at 0."""
    t = torch.linspace(0, 2 * math.pi, frames)
    bend = depth * (1 - t.cos())
    turns = torch.eye(3).expand(frames, 24, 3, 3).clone()
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        turns[:, hip], turns[:, knee], turns[:, ankle] = about(0, -bend), about(0, 2 * bend), about(0, -bend)
    offsets = OFFSETS.expand(frames, -1, -1)
    points, _ = forward_kinematics(turns, offsets, PARENTS)
    points = points - points[:, 7:8]  # the left ankle stays where it is
    points = points @ upright("y").T
    points = points - torch.tensor([0.0, 0.0, float(points[0, :, 2].min())])
    return HumanMotion(points, NAMES, PARENTS, FPS, **changes)


class TestMeasure:
    def test_a_squat_stands(self):
        found = measure(squat(floor=0.0)).scores
        assert found["sliding"].value < 0.02
        assert found["skating_ratio"].value == 0
        assert found["contact"].value == 1
        assert found["bone_change"].value < 1e-3
        assert math.isnan(found["flight_gravity"].value)
        assert found["sliding"].unit == "m/s"
        assert found["jerk"].fps == FPS

    def test_a_frozen_motion_wins_nothing(self):
        still = squat()
        still = still.noted(positions=still.positions[:1].expand(60, -1, -1).clone())
        found = measure(still).scores
        for name in ("support", "sliding", "skate", "skating_ratio", "pfc", "jerk", "acceleration", "smoothness"):
            assert math.isnan(found[name].value), name
            assert found[name].used == 0
        assert "hardly moves" in found["jerk"].note

    def test_noise_is_worse_in_every_way_that_it_is(self):
        clean = squat(floor=0.0)
        noisy = clean.noted(positions=clean.positions + 0.02 * torch.randn(clean.positions.shape))
        one, two = measure(clean).scores, measure(noisy).scores
        for name in ("support", "sliding", "skate", "jerk", "acceleration", "bone_change", "penetrate"):
            assert two[name].value > one[name].value, name
        assert two["smoothness"].value < one["smoothness"].value

    def test_a_floating_body_floats_where_the_floor_is_known(self):
        up = squat(floor=0.0)
        up = up.noted(positions=up.positions + torch.tensor([0.0, 0.0, 0.1]))
        assert measure(up).scores["float"].value == pytest.approx(100, abs=15)
        assert any("floor: unknown" in note for note in measure(up.noted(floor=None)).motion.notes)

    def test_a_body_that_slides_at_half_a_metre_per_second(self):
        still = squat(floor=0.0)
        slide = torch.stack((0.5 * torch.arange(60) / FPS, torch.zeros(60), torch.zeros(60)), -1)
        found = measure(still.noted(positions=still.positions + slide[:, None]))
        assert found.scores["sliding"].value == pytest.approx(0.5, rel=0.02)
        assert found.scores["support"].value == pytest.approx(0.5, rel=0.02)

    def test_where_and_which_way_do_not_matter(self):
        one = squat()
        turn = about(2, torch.tensor(0.8))
        two = one.noted(positions=one.positions @ turn.T + torch.tensor([5.0, -3.0, 0.7]))
        first, second = measure(one).scores, measure(two).scores
        for name, score in first.items():
            assert second[name].value == pytest.approx(score.value, rel=2e-3, abs=2e-3, nan_ok=True), name

    def test_unnamed_joints_get_what_can_be_measured(self):
        plain = squat().noted(names=tuple(f"j{k}" for k in range(24)))
        found = measure(plain).scores
        assert math.isnan(found["sliding"].value)
        assert "no feet are named" in found["sliding"].note
        assert found["jerk"].value == pytest.approx(measure(squat()).scores["jerk"].value)

    def test_a_rest_pose_before_the_motion_is_left_out(self):
        clean = squat()
        first = clean.positions[:1] + torch.rand(1, 24, 3)
        with_pose = clean.noted(positions=torch.cat((first, clean.positions[1:])))
        cut = without_rest_pose(with_pose)
        assert len(cut) == 59
        assert len(without_rest_pose(clean)) == 60

    def test_too_short(self):
        with pytest.raises(InputError, match="4 or more"):
            measure(squat().cut(0, 3))

    def test_short_clips_get_no_smoothness(self):
        for frames in (5, 8, 10, 30):
            score = measure(squat().cut(0, frames)).scores["smoothness"]
            assert math.isnan(score.value)
            assert score.note == f"{frames} frames; log dimensionless jerk needs 31"
        assert math.isfinite(measure(squat().cut(0, 31)).scores["smoothness"].value)

    def test_phys_err_is_the_sum_that_its_note_says(self):
        up = squat(floor=0.0)
        hop = torch.zeros(60, 1, 3)
        hop[10:50, 0, 2] = 0.8 * torch.linspace(0, math.pi, 40).sin()
        found = measure(up.noted(positions=up.positions + hop)).scores
        assert found["phys_err"].value == pytest.approx(sum(found[k].value for k in ("penetrate", "float", "skate")))
        assert found["float"].value > found["float_grounded"].value + 50
        assert "penetrate + float + skate, flight counted as floating" in found["phys_err"].note

    def test_every_number_that_is_missing_has_its_reason(self):
        plain = measure(squat().noted(names=tuple(f"j{k}" for k in range(24)))).scores
        assert plain["contact"].note == "no feet are named"
        assert plain["float_grounded"].note == "no named feet to see flight by"
        up = squat(floor=0.0)
        up = measure(up.noted(positions=up.positions + torch.tensor([0.0, 0.0, 1.0]))).scores
        assert up["sliding"].note == "no foot lower than 5 cm"
        still = squat().cut(0, 5)
        still = measure(still.noted(positions=still.positions[:1].expand(5, -1, -1).clone())).scores
        assert still["el_violation"].note.startswith("5 frames; dynamics fits windows of 9")

    def test_against_a_reference(self):
        true = squat()
        off = true.noted(positions=true.positions + torch.tensor([0.03, 0.04, 0.0]))
        found = against(off, true)
        assert found["mpjpe"].value == pytest.approx(50, rel=1e-4)
        assert found["mpjpe_root"].value < 1e-3
        with pytest.raises(InputError, match="no joint of the reference"):
            against(off.noted(names=tuple(f"j{k}" for k in range(24))), true)
        with pytest.raises(InputError, match="resample"):
            against(off.noted(fps=60.0), true)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def drawn(measured):
    figure = Figure(figsize=(10.5, 2.4))
    curves(measured)(figure, LIGHT)
    return figure.axes


class TestCurves:
    def test_the_noise_floor_is_in_the_legend_and_cut_curves_are_marked(self):
        clean = squat(floor=0.0)
        noise = torch.randn(clean.positions.shape, generator=torch.Generator().manual_seed(0))
        feet, _, _, forces = drawn(measure(clean.noted(positions=clean.positions + 0.03 * noise)))
        assert "noise floor" in [text.get_text() for text in forces.get_legend().get_texts()]
        assert re.search(r"cut at \d", forces.get_title(loc="left") or forces.get_title())
        assert "cut" not in feet.get_title()
        assert "cut" not in drawn(measure(clean))[3].get_title()
        jumped = clean.positions.clone()
        jumped[30, 7, 2] += 9
        assert "cut at" in drawn(measure(clean.noted(positions=jumped)))[0].get_title()

    def test_the_legend_of_the_forces_is_beside_them(self):
        figure = Figure(figsize=(10.5, 2.4), layout="constrained")
        FigureCanvasAgg(figure)
        curves(measure(squat()))(figure, LIGHT)
        figure.canvas.draw()
        forces = figure.axes[3]
        assert forces.get_legend().get_window_extent().x0 >= forces.get_window_extent().x1

    def test_the_reason_for_no_forces_is_the_true_one(self):
        said = drawn(measure(squat().cut(0, 5)))[3].texts[0].get_text()
        assert "5 frames; dynamics fits windows of 9" in " ".join(said.split())


class TestReport:
    def test_figures_of_both_reports_have_captions_and_texts_for_readers_of_the_screen(self, tmp_path):
        one = measure(squat())
        pages = [
            report.write(tmp_path / "a.html", [one], ["a"], {}, {}),
            changes.write(tmp_path / "b.html", {"a": changes.Change(one, one, "how")}, {}, {}),
        ]
        for page in pages:
            tags = Tags()
            tags.feed(page.read_text())
            assert all(attrs["alt"] for tag, attrs in tags.seen if tag == "img")
            said = re.findall("<figcaption>(.*?)</figcaption>", page.read_text())
            for word in ("jerk", "centre of mass", "noise floor dotted", "cut at"):
                assert any(word in caption for caption in said), word

    def test_the_figure_moves_with_every_bone(self):
        measured = measure(squat())
        tags = Tags()
        tags.feed(animated(measured))
        paths = [attrs for tag, attrs in tags.seen if tag == "path"]
        moving = [attrs["values"].split(";") for tag, attrs in tags.seen if tag == "animate" and attrs["attributename"] == "d"]
        assert sum(path["d"].count("M") for path in paths) == 23
        assert {len(values) for values in moving} == {30}, "30 frames/s drawn at 15"
        numbers = re.findall(r"-?\d+", moving[0][0] + moving[1][7])
        assert 0 <= min(map(int, numbers)) <= max(map(int, numbers)) < 900

    def test_it_stands_alone(self, tmp_path):
        results = [measure(squat()), measure(squat(depth=0.3))]
        page = report.write(tmp_path / "r.html", results, ["<a>.bvh", "b.bvh"], {"c.bvh": "reason & cause"}, {}).read_text()
        assert "&lt;a&gt;.bvh" in page
        assert "reason &amp; cause" in page
        assert not re.search(r"<script|https?://(?!www\.w3\.org)|src=\"(?!data:)", page)
        assert page.count("<svg") == 2


@pytest.mark.real
class TestReal:
    @pytest.mark.parametrize("number", [1, 2])
    def test_fixed_feet_slide_less_than_raw_ones(self, real, number):
        raw, fixed = (
            measure(read_motion(real / "motion" / f"dme_demo_3d_{number}_{kind}.bvh")).scores for kind in ("raw", "fixed")
        )
        assert fixed["sliding"].value < 0.75 * raw["sliding"].value
        assert fixed["support"].value < 0.6 * raw["support"].value
        assert fixed["penetrate"].value <= raw["penetrate"].value
        assert fixed["contact"].value > raw["contact"].value

    def test_the_sample_clip_stands_on_its_floor(self, real):
        found = measure(read_motion(real / "motion" / "humanml3d_012314_vecs.npy"))
        assert found.floor == 0
        assert found.scores["penetrate"].value < 5
        assert found.scores["float"].value < 40
        assert found.scores["bone_change"].value < 0.1
        labelled = found.motion.contacts
        ours = found.curves["contacts"]
        assert float((labelled == ours).double().mean()) > 0.8, "against the format's own loose labels"

    def test_a_jump_of_cmu_falls_with_gravity(self, real):
        found = measure(read_motion(real / "motion" / "cmu_01_01.bvh"))
        assert found.scores["flight_gravity"].value == pytest.approx(-9.81, rel=0.1)
        assert any("rest pose" in note for note in found.motion.notes)

    def test_markers_are_measured_as_markers(self, real):
        for name in ("bmc_Gait.c3d", "s4_DJ1.trc"):
            found = measure(read_motion(real / "motion" / name))
            assert found.motion.kind == "markers"
            assert math.isnan(found.scores["bone_change"].value)
            assert found.scores["sliding"].value > 0

    def test_the_drop_jump_is_in_the_air_as_long_as_the_plates_say(self, real):
        found = measure(read_motion(real / "motion" / "s4_DJ1.trc"))
        spans = [(b - a) / 100 for a, b in contact.runs(found.curves["airborne"]) if a > 180]
        assert max(spans) == pytest.approx(0.40, abs=0.1)

    def test_plates_see_the_flight_of_a_jump(self, real):
        table = np.loadtxt(real / "motion" / "bmc_jump1.txt", skiprows=1)
        force = torch.from_numpy(table[:, 1])
        spans = [end - start for start, end in contact.flights(force, 450.0)]
        assert max(spans) == pytest.approx(0.551, abs=0.01)

    def test_a_tossed_ball_falls_with_gravity(self, real):
        table = torch.from_numpy(np.loadtxt(real / "motion" / "bmc_balltoss.txt", skiprows=2))
        fps = 1 / float(table[:, 0].diff().mean())
        found = contact.flight_acceleration(table[:, 2], fps, torch.ones(len(table), dtype=torch.bool))
        assert found == pytest.approx(-9.81, rel=0.03)

    def test_contact_of_the_walk_agrees_with_its_plates(self, real):
        folder = real / "motion"
        motion = read_motion(folder / "bmc_walk1.trc", Reading(hand="right")).noted(
            plates=read_forces(folder / "bmc_walk1.forces")
        )
        found = measure(motion)
        assert found.scores["support"].value < 0.04, "a recorded walk does not slide"
        loaded = sum(plate.force[:, 2] for plate in motion.plates)[::3][: len(motion)] > 20
        stands = found.curves["contacts"].any(-1)[: len(loaded)]
        assert float((stands & loaded).sum() / loaded.sum()) > 0.9
