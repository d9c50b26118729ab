"""Files of 2D poses: what is no number is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visviva.configs.motion import MotionRecipe
from visviva.errors import InputError
from visviva.pipelines.motion.lift import in_two, poses_of

POINTS = np.broadcast_to(64.0 + np.arange(-8.0, 9.0)[:, None] * [1, 2], (6, 17, 2))
STORED = {"points": POINTS, "fps": 29.97, "width": 128, "height": 128, "confidence": np.ones((6, 17))}


def test_poses_are_read_with_their_rate(tmp_path):
    np.savez(tmp_path / "poses.npz", **STORED)
    assert in_two(tmp_path / "poses.npz")
    poses, fps = poses_of(tmp_path / "poses.npz", MotionRecipe())
    assert fps == 29.97
    assert torch.allclose(poses.image, torch.from_numpy(POINTS - 64.0).float() / 128)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fps": "x"}, "fps is of the type <U1, no numbers"),
        ({"width": [128, 128]}, "width has 2 numbers; save one"),
        ({"points": np.full((6, 17, 2), "a")}, "points is of the type"),
        ({"confidence": np.full((6, 17), "a")}, "confidence is of the type"),
        ({"fps": 0}, "without a frame rate"),
        ({"height": 0}, "without the pictures' size"),
    ],
)
def test_what_is_no_number_is_said(changed, said, tmp_path):
    np.savez(tmp_path / "poses.npz", **{**STORED, **changed})
    with pytest.raises(InputError, match=said):
        poses_of(tmp_path / "poses.npz", MotionRecipe())
