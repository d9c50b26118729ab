"""Masses from meshes against solids with closed forms."""

import math

import pytest
import torch

from visviva.errors import InputError
from visviva.physics.bodies.mesh import mesh_inertia


def tube(rings=41, sides=64, radius=0.05, length=1.0):
    """A closed cylinder along x from 0 to ``length``: vertices, faces."""
    turn = torch.arange(sides, dtype=torch.float64) * 2 * math.pi / sides
    along = torch.linspace(0, length, rings, dtype=torch.float64)
    wall = torch.stack(
        [along[:, None].expand(-1, sides), *(radius * f(turn).expand(rings, -1) for f in (torch.cos, torch.sin))], -1
    )
    ends = torch.tensor([[0.0, 0, 0], [length, 0, 0]], dtype=torch.float64)
    faces = []
    for k in range(sides):
        n = (k + 1) % sides
        faces += [[rings * sides, n, k], [rings * sides + 1, (rings - 1) * sides + k, (rings - 1) * sides + n]]
        for r in range(rings - 1):
            a, b = r * sides, (r + 1) * sides
            faces += [[a + k, a + n, b + k], [a + n, b + n, b + k]]
    return torch.cat([wall.reshape(-1, 3), ends]), torch.tensor(faces)


def blended(vertices, at=0.4, width=0.1):
    """Two links that meet at x = ``at``, blended linearly over ``width``."""
    second = ((vertices[:, 0] - at) / width + 0.5).clamp(0, 1)
    return torch.stack([1 - second, second], -1)


JOINTS = torch.tensor([[0.0, 0, 0], [0.4, 0, 0]], dtype=torch.float64)


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.3, -2.0, 1.0)])
def test_a_tube_of_two_links_has_two_cylinders(shift):
    vertices, faces = tube()
    move = torch.tensor(shift, dtype=torch.float64)
    mass, com, inertia = mesh_inertia(vertices + move, faces, blended(vertices), JOINTS + move, (-1, 0), ("a", "b"), 1000.0)
    for link, length in enumerate((0.4, 0.6)):
        m = 1000 * math.pi * 0.05**2 * length
        assert float(mass[link]) == pytest.approx(m, rel=0.01)
        assert com[link].tolist() == pytest.approx([length / 2, 0, 0], abs=2e-3)
        across = m * (3 * 0.05**2 + length**2) / 12
        assert inertia[link].diag().tolist() == pytest.approx([m * 0.05**2 / 2, across, across], rel=0.04)
        assert float((inertia[link] - inertia[link].diag().diag()).abs().max()) < 1e-6


def test_volumes_add_up_to_the_meshs_however_they_are_shared():
    vertices, faces = tube(rings=11, sides=16)
    weights = torch.rand(len(vertices), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    weights = blended(vertices) + weights
    weights = weights / weights.sum(-1, keepdim=True)
    volume = 0.5 * 16 * 0.05**2 * math.sin(2 * math.pi / 16)
    mass, _, _ = mesh_inertia(vertices, faces, weights, JOINTS, (-1, 0), ("a", "b"), 1.0)
    assert float(mass.sum()) == pytest.approx(volume, rel=1e-9)


def test_a_link_that_nothing_follows_is_massless_and_gradients_are_exact():
    vertices, faces = tube(rings=5, sides=6)
    weights = torch.cat([blended(vertices), torch.zeros(len(vertices), 1, dtype=torch.float64)], -1)
    joints = torch.cat([JOINTS, JOINTS[1:]])

    def all_of(v):
        return mesh_inertia(v, faces, weights, joints, (-1, 0, 1), ("a", "b", "c"), 1.0)

    mass, _, inertia = all_of(vertices)
    assert float(mass[2]) == 0
    assert float(inertia[2].abs().max()) == 0
    assert torch.autograd.gradcheck(all_of, (vertices.requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v, f, w, j: (v, f[:-3], w, j), "not closed"),
        (lambda v, f, w, j: (v, f.flip(-1), w, j), "turn its faces outwards"),
        (lambda v, f, w, j: (v, f + 5, w, j), "faces name vertex"),
        (lambda v, f, w, j: (v, f, w[:-1], j), "weights of the shape"),
        (lambda v, f, w, j: (v * torch.nan, f, w, j), "not finite"),
        (lambda v, f, w, j: (v, f, w, j + torch.tensor([[0.0, 0, 0], [3, 0, 0]])), "encloses no volume"),
    ],
)
def test_what_encloses_nothing_is_refused(change, said):
    vertices, faces = tube(rings=5, sides=6)
    with pytest.raises(InputError, match=said):
        mesh_inertia(*change(vertices, faces, blended(vertices), JOINTS), (-1, 0), ("a", "b"))
