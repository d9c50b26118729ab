"""A measurement refuses quantities that do not belong together and can be cut, moved and detached as one."""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics.measurement import Measurement, check_frames

FPS = torch.tensor([30.0, 24.0])


def measurement(**changes):
    quantities = {
        "fps": FPS,
        "flow": torch.zeros(2, 4, 2, 6, 7),
        "confidence": torch.ones(2, 4, 1, 6, 7),
        "masks": torch.ones(2, 5, 3, 6, 7),
        "features": torch.zeros(2, 9, 4),
        "contact": torch.zeros(2, 5, dtype=torch.bool),
        "noise": torch.zeros(2),
    }
    return Measurement(**{**quantities, **changes})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("flow", (2, 4, 3, 6, 7)), ("flow", (3, 4, 2, 6, 7)), ("confidence", (2, 5, 1, 6, 7)), ("masks", (2, 4, 3, 6, 7)),
        ("masks", (2, 5, 3, 7, 6)), ("features", (2, 9)), ("contact", (2, 4)), ("noise", (2, 1)),
    ],
)  # fmt: skip
def test_quantities_that_do_not_fit_are_refused_by_name(name, shape):
    with pytest.raises(InputError, match=f"measured {'(flow|confidence|masks)' if name == 'flow' else name} has shape"):
        measurement(**{name: torch.zeros(shape, dtype=torch.bool if name == "contact" else torch.float32)})


def test_frames_and_pixels_come_from_whatever_was_measured():
    assert measurement().frames == 5
    assert measurement().pixels == (6, 7)
    assert Measurement(fps=FPS, masks=torch.ones(2, 5, 1, 6, 7)).frames == 5
    assert Measurement(fps=FPS).frames is None


def test_a_slice_a_copy_and_a_detached_copy_take_the_reference_along():
    flow = torch.zeros(2, 4, 2, 6, 7, requires_grad=True)
    both = measurement(flow=flow * 2, reference=measurement(flow=flow * 3))
    one = both[1:2]
    assert one.fps.tolist() == [24.0]
    assert one.reference.flow.shape[0] == 1
    assert not both.detach().reference.flow.requires_grad
    assert both.flow.requires_grad
    assert both.to("cpu").reference.masks.shape == (2, 5, 3, 6, 7)
    assert both.with_(masks=None).masks is None


@pytest.mark.parametrize(
    ("frames", "fps", "says"),
    [
        (torch.zeros(2, 5, 4, 6, 6), FPS, "give \\(B, T, 3, H, W\\)"),
        (torch.zeros(5, 3, 6, 6), FPS, "give \\(B, T, 3, H, W\\)"),
        (torch.zeros(2, 5, 3, 6, 6, dtype=torch.uint8), FPS, "give floats"),
        (torch.zeros(2, 1, 3, 6, 6), FPS, "1 frame"),
        (torch.zeros(2, 5, 3, 6, 6), FPS[:1], "one number per clip"),
        (torch.full((2, 5, 3, 6, 6), 255.0), FPS, "divide 8-bit frames by 255"),
        (torch.full((2, 5, 3, 6, 6), float("nan")), FPS, "finite numbers"),
    ],
)
def test_frames_that_cannot_be_measured_are_refused_in_one_sentence(frames, fps, says):
    with pytest.raises(InputError, match=says):
        check_frames(frames, fps)


def test_frames_a_little_outside_the_range_are_measured():
    assert check_frames(torch.full((2, 5, 3, 6, 6), 1.05), FPS) is None
