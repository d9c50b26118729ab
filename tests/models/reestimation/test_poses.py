"""2D poses: given ones in several layouts, ViTPose with random weights, and what is missing said clearly."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.camera import Camera, placed
from visviva.models.reestimation.joints import h36m
from visviva.models.reestimation.poses import MediaPipe, ViTPose, given, peaks


def test_given_points_are_measured_from_the_middle_in_heights_and_unseen_ones_are_held():
    points = torch.rand(5, 17, 2) * 100
    points[2:4, 3] = float("nan")
    found = given(points, 100, 200)
    assert torch.allclose(found.image[0], (points[0] - torch.tensor([100.0, 50.0])) / 100)
    assert torch.equal(found.image[2, 3], found.image[1, 3])
    assert found.confidence[2, 3] == 0
    assert found.confidence.sum() == 5 * 17 - 2


def test_layouts_agree_on_the_limbs():
    body = torch.rand(22, 3)
    found = h36m(body, "humanml3d")
    assert torch.equal(found[[1, 2, 3, 4, 5, 6]], body[[2, 5, 8, 1, 4, 7]])
    assert torch.equal(found[0], (body[1] + body[2]) / 2)
    assert torch.equal(found[11:], body[[16, 18, 20, 17, 19, 21]])
    coco = torch.zeros(17, 2)
    coco[[5, 6]], coco[[11, 12]], coco[:5] = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.5])
    assert h36m(coco, "coco")[[0, 7, 8, 10], 1].tolist() == pytest.approx([2.0, 1.5, 1.0, 0.3])


def test_a_level_camera_sees_the_same_rays_and_places_the_body():
    camera = Camera(torch.tensor([50.0, 65.0]), torch.tensor([12.0, -8.0]))
    pose = torch.randn(2, 4, 17, 3, dtype=torch.float64) * 0.3
    joints = pose + torch.tensor([0.4, 4.0, -0.6])
    plane = camera.levelled(camera.project(joints))
    assert torch.allclose(plane, joints[..., [0, 2]] / joints[..., 1:2])
    assert torch.allclose(placed(pose - pose[..., :1, :], plane), joints)


def test_vitpose_of_the_real_class_finds_the_peaks_of_its_maps():
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, out_indices=[1]
    )
    model = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True))
    frames = torch.rand(3, 3, 80, 60)
    found = ViTPose(model, torch.tensor([6.0, 8.0, 48.0, 64.0]))(frames)
    assert found.image.shape == (3, 17, 2)
    inside = found.image[:, [1, 2, 3, 4, 5, 6]] * 80 + torch.tensor([30.0, 40.0])
    assert bool((inside >= torch.tensor([6.0, 8.0])).all() & (inside <= torch.tensor([54.0, 72.0])).all())


def test_peaks_move_towards_the_higher_side():
    maps = torch.zeros(1, 1, 5, 6)
    maps[0, 0, 2, 3], maps[0, 0, 2, 4], maps[0, 0, 1, 3] = 1.0, 0.5, 0.2
    place, height = peaks(maps)
    assert place[0, 0].tolist() == [3.25, 1.75]
    assert float(height) == 1.0


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="no folder with a ViTPose model"):
        ViTPose(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "vitpose"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")  # not opened
    with pytest.raises(InputError, match="could not be loaded as a ViTPose model"):
        ViTPose(tmp_path)
    with pytest.raises(InputError, match=r"MediaPipe is not installed|no such file"):
        MediaPipe(tmp_path / "pose.task")
    with pytest.raises(InputError, match=r"\(frames, joints, 2\) is wanted"):
        given(torch.zeros(4, 17, 3), 100, 100)
    with pytest.raises(InputError, match=r"joints \[2\] are seen in no frame"):
        given(torch.zeros(4, 17, 2).index_fill(1, torch.tensor([2]), float("nan")), 100, 100)
    with pytest.raises(InputError, match=r"the 2D poses span 0\.9\d* px of a picture of 1000 x 800 px"):
        given(torch.rand(4, 17, 2, generator=torch.Generator().manual_seed(0)), 800, 1000)
    with pytest.raises(InputError, match="view of 0"):
        Camera(view=0.0)


def test_confidences_of_other_shapes_are_refused_and_unknown_ones_are_none():
    points = torch.rand(4, 17, 2) * 100
    with pytest.raises(InputError, match=r"confidences of the shape \(3, 17\)"):
        given(points, 100, 100, torch.ones(3, 17))
    sure = torch.ones(4, 17)
    sure[1, 5] = float("nan")
    found = given(points, 100, 100, sure)
    assert float(found.confidence[1, 5]) == 0.0
    assert found.image.isfinite().all()
