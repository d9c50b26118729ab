"""Flow errors: golden numbers, closed forms, files, a real pair."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from visviva.errors import InputError
from visviva.eval.benchmarks.flow import flow_errors, read_flow, write_flo
from visviva.models.probes.dis import DIS


def golden():
    y, x = torch.meshgrid(torch.arange(32, dtype=torch.float64), torch.arange(40, dtype=torch.float64), indexing="ij")
    true = torch.stack([3 * torch.sin(x / 5), 2 * torch.cos(y / 4) + x / 10])
    flow = true + torch.stack([0.5 * torch.cos(x * y / 30), torch.where(x > 30, 4.0, 0.0)])
    return flow, true, x.long() % 3 > 0


@pytest.mark.parity
def test_golden_numbers():
    flow, true, valid = golden()
    found = flow_errors(flow, true, valid)
    assert float(found["epe"]) == pytest.approx(1.176182947, abs=1e-9)
    assert float(found["fl"]) == pytest.approx(23.076923, abs=5e-7)
    assert float(found["share"]) == float(valid.double().mean())


def test_closed_forms_and_batches():
    zero, three = torch.zeros(2, 4, 5), torch.zeros(2, 4, 5)
    three[0] = 3.0
    batch = flow_errors(torch.stack([zero, three]), torch.stack([zero, zero]))
    assert batch["epe"].tolist() == [0, 3]
    assert batch["aae"].tolist() == pytest.approx([0, np.degrees(np.arctan(3))], abs=1e-5)
    assert batch["fl"].tolist() == [0, 0]  # exactly 3 px is no outlier
    large = flow_errors(100 + zero, 104 + zero)
    assert float(large["fl"]) == 0  # 5.7 px of 147: below 5 %


def test_no_valid_pixel_has_no_value():
    flow, true, valid = golden()
    found = flow_errors(flow, true, torch.zeros_like(valid))
    assert bool(found["epe"].isnan())
    assert float(found["share"]) == 0


def test_middlebury_files_come_back(tmp_path):
    flow = torch.randn(2, 6, 7)
    write_flo(tmp_path / "a.flo", flow)
    back, known = read_flow(tmp_path / "a.flo")
    assert torch.equal(back, flow)
    assert bool(known.all())
    flow[:, 2, 3] = 1e10
    write_flo(tmp_path / "b.flo", flow)
    back, known = read_flow(tmp_path / "b.flo")
    assert int((~known).sum()) == 1
    assert float(back[0, 2, 3]) == 0
    (tmp_path / "c.flo").write_bytes((tmp_path / "a.flo").read_bytes()[:-3])
    with pytest.raises(InputError, match="cut off"):
        read_flow(tmp_path / "c.flo")


def test_kitti_files(tmp_path):
    image = np.zeros((4, 5, 3), np.uint16)  # B, G, R = valid, v, u
    image[1, 2] = (1, 2**15 - 64, 2**15 + 96)
    cv2.imwrite(str(tmp_path / "k.png"), image)
    flow, known = read_flow(tmp_path / "k.png")
    assert flow[:, 1, 2].tolist() == [1.5, -1.0]
    assert int(known.sum()) == 1
    with pytest.raises(InputError, match="kind of flow file"):
        read_flow(__file__)
    with pytest.raises(InputError, match="no flow file"):
        read_flow(tmp_path / "none.flo")


@pytest.mark.real
def test_dis_on_a_real_pair_reads_what_others_measured(real):
    """EPE 2.70 of OpenCV's DIS (medium) on FlyingChairs' first pair, computed at its own size."""
    folder = real / "flow"
    images = [cv2.imread(str(p), cv2.IMREAD_COLOR_RGB) for p in sorted(folder.glob("chairs_00001_*.ppm"))]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()[None] / 255
    true, known = read_flow(next(folder.glob("chairs_00001_*.flo")))
    flow = DIS(least_side=1)(frames, torch.ones(1)).flow[0, 0]
    assert float(flow_errors(flow, true, known)["epe"]) == pytest.approx(2.70, abs=0.05)


def test_a_flow_that_is_not_finite_is_not_the_best_and_shapes_must_fit():
    true = torch.zeros(2, 4, 5)
    broken = torch.full((2, 4, 5), 9.0)
    broken[0, 1, 2] = math.nan
    errors = flow_errors(broken, true)
    assert all(math.isnan(float(errors[name])) for name in ("epe", "aae", "fl"))
    elsewhere = torch.ones(4, 5, dtype=torch.bool)
    elsewhere[1, 2] = False
    assert float(flow_errors(broken, true, elsewhere)["fl"]) == 100
    for flow, valid in ((broken[..., :1], None), (broken, elsewhere[:, :1])):
        with pytest.raises(InputError, match="do not fit each other"):
            flow_errors(flow, true, valid)


def test_a_header_whose_size_overflows_is_refused(tmp_path):
    path = tmp_path / "huge.flo"
    path.write_bytes(np.float32(202021.25).tobytes() + np.array([65536, 65536], "<i4").tobytes())
    with pytest.raises(InputError, match="cut off"):
        read_flow(path)
