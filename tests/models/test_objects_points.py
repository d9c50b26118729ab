"""Points carried by flow against drawn paths; adapters of given trackers against stand-ins of their documented layouts."""

import pytest
import torch

from visviva.errors import InputError
from visviva.models.probes import DIS, LucasKanade, PatchFeatures, Points, track_points
from visviva.models.probes.objects import cotracker, grid_queries, tapir
from visviva.physics.sprites import random_sprites

FPS = torch.full((4,), 30.0)


def uniform(speed, steps=6, size=32):
    return torch.tensor(speed).view(1, 1, 2, 1, 1).expand(1, steps, 2, size, size).clone()


def test_a_uniform_flow_carries_points_both_ways_exactly():
    flow = uniform((1.5, -0.5))
    queries = torch.tensor([[[0.0, 4.0, 20.0], [3.0, 12.0, 15.0], [6.0, 16.0, 9.0]]])
    tracks = track_points(flow, -flow, queries)
    t = torch.arange(7.0).view(1, 7, 1, 1)
    expected = queries[:, None, :, 1:] + (t - queries[:, None, :, :1]) * torch.tensor([1.5, -0.5])
    assert torch.allclose(tracks.positions, expected, atol=1e-4)
    assert tracks.visible.all()
    away = (t[..., 0] - queries[:, None, :, 0]).abs()
    assert torch.allclose(tracks.sigma, 0.05 * (1 + away).sqrt(), atol=1e-4)


def test_a_broken_cycle_and_the_border_hide_a_point_for_good():
    flow, back = uniform((1.0, 0.0)), uniform((-1.0, 0.0))
    back[:, 2] = 4.0  # the third step does not come back
    tracks = track_points(flow, back, torch.tensor([[[0.0, 4.0, 8.0]]]))
    assert tracks.visible[0, :, 0].tolist() == [True] * 3 + [False] * 4
    assert float(tracks.sigma[0, 3]) > 2
    leaving = track_points(flow, -flow, torch.tensor([[[0.0, 28.0, 8.0]]]))
    assert leaving.visible[0, :, 0].tolist() == [True] * 4 + [False] * 3


def test_queries_outside_the_clip_are_refused():
    with pytest.raises(InputError, match="outside frames 0 to 6"):
        track_points(uniform((0.0, 0.0)), uniform((0.0, 0.0)), torch.tensor([[[7.0, 1.0, 1.0]]]))


def test_points_on_objects_follow_the_drawn_path_and_say_how_well():
    scene = random_sprites(4, seed=2)
    frames = scene.render().frames
    queries = torch.cat([torch.zeros(4, 1, 1), scene.trajectory[:, 0]], dim=-1)
    there, back = LucasKanade()(frames, FPS).flow, LucasKanade()(frames.flip(1), FPS).flow.flip(1)
    tracks = track_points(there, back, queries)
    error = (tracks.positions - scene.trajectory).abs()
    assert float(tracks.visible.float().mean()) > 0.6
    assert float(error[tracks.visible].median()) < 0.5


def test_the_probe_measures_tracks_and_carries_gradient_as_its_flow_does():
    frames = random_sprites(4, seed=2, frames=4, height=32, width=32, radius=(4.0, 6.0)).render().frames.requires_grad_()
    probe = Points(LucasKanade(), queries=torch.tensor([[0.0, 16.0, 16.0]]))
    measured = probe(frames, FPS)
    assert measured.tracks.positions.shape == (4, 4, 1, 2)
    assert measured.flow is not None
    (gradient,) = torch.autograd.grad(measured.tracks.positions.sum(), frames)
    assert float(gradient.abs().max()) > 0
    assert probe.differentiable
    assert not Points(DIS()).differentiable
    with pytest.raises(InputError, match="does not measure"):
        Points(PatchFeatures())(frames, FPS)


class Stand:
    """A stand-in for TAPIR: its documented layout, moving every point by 2 px per frame of its own 256 px picture."""

    def __call__(self, video, queries):
        self.video, self.queries = video, queries
        t = torch.arange(video.shape[1]).view(1, 1, -1, 1)
        place = queries[:, :, None, 1:].flip(-1) + 2.0 * (t - queries[:, :, None, :1])
        hidden = torch.where(t[..., 0] < 3, -9.0, 9.0).expand(place.shape[:3])
        return {"tracks": place, "occlusion": hidden, "expected_dist": torch.full_like(hidden, -9.0)}


def test_a_tapir_network_sees_its_own_layout_and_its_answer_comes_back_in_ours():
    frames = torch.rand(2, 5, 3, 64, 128)
    queries = torch.tensor([[[1.0, 63.5, 31.5]]]).expand(2, 1, 3)
    stand = Stand()
    tracks = tapir(stand)(frames, queries)
    assert stand.video.shape == (2, 5, 256, 256, 3)
    assert -1 <= float(stand.video.min()) < -0.5
    assert 0.5 < float(stand.video.max()) <= 1
    assert stand.queries[0, 0].tolist() == [1.0, 128.0, 128.0]  # (t, y, x): the middle of the picture
    assert torch.allclose(tracks.positions[0, :, 0, 0], 63.5 + (torch.arange(5.0) - 1))  # 2 px of 256 are 1 px of 128
    assert torch.allclose(tracks.positions[0, :, 0, 1], 31.5 + 0.5 * (torch.arange(5.0) - 1))
    assert tracks.visible[0, :, 0].tolist() == [True, True, True, False, False]
    assert Points(tapir(stand), queries=queries[0])(frames, FPS[:2]).tracks.positions.shape == (2, 5, 1, 2)


def test_a_cotracker_network_sees_its_own_layout():
    seen = {}

    def stand(video, queries):
        seen["video"], seen["queries"] = video, queries
        place = queries[:, None, :, 1:].expand(-1, video.shape[1], -1, -1)
        return place, torch.tensor([0.9, 0.1, 0.8]).view(1, 3, 1).expand(place.shape[:3])

    frames = torch.rand(2, 3, 3, 16, 16)
    queries = grid_queries(frames, across=2)
    tracks = cotracker(stand)(frames, queries)
    assert torch.equal(seen["video"], frames * 255)
    assert seen["queries"][0, 1].tolist() == [0.0, 11.5, 3.5]  # (t, x, y)
    assert tracks.visible[0, :, 0].tolist() == [True, False, True]
    assert not tracks.positions.requires_grad
