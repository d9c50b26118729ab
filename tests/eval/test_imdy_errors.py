"""Errors of torques and forces in closed form, with ImDy's units."""

import math

import pytest
import torch

from visviva.errors import InputError
from visviva.eval.motion import imdy


def test_closed_forms():
    true = torch.tensor([[[3.0, 0, 0], [0, 0, 0]]])
    found = torch.tensor([[[0.0, 4, 0], [0, 0, 2]]])
    assert float(imdy.mpje(found, true)) == pytest.approx((5 + 2) / 2)
    assert float(imdy.size_error(found, true)) == pytest.approx((1 + 2) / 2)
    assert float(imdy.angle_error(found, true)) == pytest.approx(math.pi / 2 / 2), "where one is 0 the angle is 0"
    assert float(imdy.relative_error(found, true)) == pytest.approx(7 / 3)
    assert float(imdy.relative_error(0 * true, true)) == pytest.approx(1)
    assert float(imdy.angle_error(0 * true, true)) == 0


def test_feet_sum_ankle_and_toe():
    true = torch.zeros(1, 4, 3)
    found = true.clone()
    found[0, 0, 2], found[0, 1, 2], found[0, 2, 0] = 0.5, -0.5, 3.0
    assert float(imdy.foot_error(found, true)) == pytest.approx(1.5), "0 on the left, 3 on the right"
    kept = imdy.touching(found, torch.tensor([[0.6, 0.5, 0.4, 0.9]]))
    assert kept[0].norm(dim=-1).tolist() == [0.5, 0, 0, 0]


def test_contacts_and_units():
    one, other = torch.tensor([[True, True, False]]), torch.tensor([[True, False, True]])
    assert float(imdy.contact_f1(one, other)) == pytest.approx(0.5)
    assert float(imdy.contact_f1(one & False, other & False)) == 0
    assert float(imdy.published_torque(torch.tensor(1.0), 76.3869)) == pytest.approx(2 / 60)
    with pytest.raises(InputError, match="same frames"):
        imdy.mpje(torch.zeros(2, 3), torch.zeros(3, 3))
