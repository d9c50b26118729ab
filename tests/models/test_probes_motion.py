"""Motion segmentation under speckle: a moving body is still found, and time and memory do not explode."""

import time

import torch

from visviva.models.probes import motion
from visviva.models.probes.motion import MOST, MotionMasks, _Component, _linked


def speckled(steps=16, size=192, specks=150):
    """A disc of radius 9 that moves 5 px a frame over grey ground, among specks of 3 x 3 px at new places in every frame."""
    generator = torch.Generator().manual_seed(0)
    frames, masks = torch.full((steps, 3, size, size), 0.5), torch.zeros(steps, size, size, dtype=torch.bool)
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for t in range(steps):
        for y, x in torch.randint(0, size - 3, (specks, 2), generator=generator).tolist():
            frames[t, :, y : y + 3, x : x + 3] = 1.0
        masks[t] = (xs - 40 - 5 * t).square() + (ys - 90).square() <= 81
        frames[t, :, masks[t]] = torch.tensor([0.9, 0.1, 0.1])[:, None]
    return frames[None], masks


def test_a_body_among_many_specks_is_found_at_once():
    frames, true = speckled()
    start = time.perf_counter()
    found = MotionMasks(least_area=4)(frames, None)[0, :, 0] > 0.5
    assert time.perf_counter() - start < 20  # a minute when every pair of components was compared in full
    shared = (found & true).flatten(1).sum(1) / true.flatten(1).sum(1)
    assert float(shared.mean()) > 0.4  # a speck in its way may break the track in two
    assert float(shared.amax()) > 0.95


def test_the_largest_components_of_a_frame_are_kept_in_their_order(monkeypatch):
    frames, _ = speckled(steps=3)
    image = (frames[0, 1] - 0.5).square().sum(0).sqrt().gt(0.12).to(torch.uint8).numpy()
    few = MotionMasks(least_area=1)._components(1, image, None)
    monkeypatch.setattr(motion, "MOST", 10_000)
    every = MotionMasks(least_area=1)._components(1, image, None)
    assert len(few) == MOST < len(every)
    assert sorted(len(c.pixels) for c in few) == sorted(len(c.pixels) for c in every)[-MOST:]
    places = [[int(c.pixels[0]) for c in found] for found in (few, every)]
    assert places[0] == [place for place in places[1] if place in set(places[0])]


def test_components_join_the_track_that_they_overlap_most():
    def component(when, first, count):
        pixels = torch.arange(first, first + count).numpy()
        return _Component(when, pixels, torch.tensor([float(pixels.mean()), 0.0]).numpy())

    near, over = [component(0, 0, 10)], [component(0, 12, 10)]
    assert _linked([near, over], component(1, 10, 10))
    assert (len(near), len(over)) == (1, 2)
    assert not _linked([near], component(1, 500, 10))
    assert not _linked([near], component(0, 0, 10))  # of the same frame
