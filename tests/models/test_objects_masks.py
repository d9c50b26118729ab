"""Moving things found without weights, where they are to a fraction of a pixel, and SAM 2's real class at a tiny size."""

import itertools

import pytest
import torch

from visviva.errors import InputError
from visviva.models.probes import Combined, LucasKanade, Moving, Objects, SAM2Masks, object_tracks
from visviva.models.probes.objects import components, ground, regions
from visviva.physics import ConstantAcceleration, MotionFloor, Term, Verifier
from visviva.physics.sprites import random_sprites
from visviva.physics.verify import iou

FPS = torch.full((8,), 30.0)


def photographed(frames, grain=0.02):
    noise = grain * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return ((frames + noise).clamp(0, 1) * 255).round() / 255


def best_order(found, true):
    """The permutation of found objects that overlaps best, for each clip (B, N)."""
    ways = list(itertools.permutations(range(true.shape[2])))
    merits = torch.stack([iou(found[:, :, list(way)], true).mean((1, 2)) for way in ways])
    return torch.tensor(ways)[merits.argmax(0)]


def in_order(value, way):
    index = way[:, None].expand(-1, value.shape[1], -1)
    return value.gather(2, index.view(*index.shape, *[1] * (value.ndim - 3)).expand(*index.shape, *value.shape[3:]))


def test_regions_are_found_whatever_their_shape():
    import cv2

    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(6, 23, 31, generator=generator) < 0.45
    hard[0] = False
    labels = components(hard)
    for mine, image in zip(labels, hard, strict=True):
        count, theirs = cv2.connectedComponents(image.numpy().astype("uint8"), connectivity=8)
        pairs = {(int(a), int(b)) for a, b in zip(mine.flatten(), theirs.flatten(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert len({a for a, _ in pairs if a}) == count - 1
    largest = regions(hard, 2, least_area=3)
    assert largest.shape == (6, 2, 23, 31)
    assert (largest.sum((-2, -1))[:, 0] >= largest.sum((-2, -1))[:, 1]).all()
    assert float(largest[0].max()) == 0


CASES = {
    "textured": (dict(seed=101), 0.86),
    "plain": (dict(seed=102, textured=False), 0.86),
    "two": (dict(seed=103, objects=2), 0.83),
}


@pytest.mark.parametrize("case", CASES)
def test_moving_objects_are_found_each_with_its_own_mask(case):
    options, least = CASES[case]
    drawn = random_sprites(8, **options).render()
    true = drawn.masks > 0.5
    found = Moving(objects=true.shape[2])(photographed(drawn.frames), None)
    overlap = iou(in_order(found, best_order(found > 0.5, true)) > 0.5, true)
    assert float(overlap.mean()) > least
    assert float(found.sum(2).max()) <= 1.00001


def test_an_object_that_stops_for_good_is_still_found_and_the_ground_under_it_is_known():
    scene = random_sprites(8, seed=105)
    path = scene.trajectory.clone()
    path[:, 8:] = path[:, 8:9]
    travelled = (path[:, 8] - path[:, 0]).norm(dim=-1)[:, 0] > 10
    assert int(travelled.sum()) >= 3
    drawn = scene.with_(trajectory=path).render()
    frames = photographed(drawn.frames)
    overlap = iou(Moving()(frames, None) > 0.5, drawn.masks > 0.5)
    assert float(overlap[travelled][:, 8:].mean()) > 0.75
    bare = ground(frames)
    wrong = ((bare.colour - scene.background).abs().amax(1) > 0.15) & (bare.known[:, 0] > 0)
    assert float(wrong[travelled].float().sum((1, 2)).mean()) < 0.1 * float(drawn.masks[travelled].sum((-2, -1)).mean())


def test_nothing_is_found_where_nothing_moves_and_short_clips_are_refused():
    drawn = random_sprites(2, seed=1, frames=5).render()
    frozen = photographed(drawn.frames[:, :1].expand(-1, 6, -1, -1, -1))
    assert float(Moving(objects=2)(frozen, None).max()) == 0
    assert not Objects()(frozen, FPS[:2]).tracks.visible.any()
    noise = torch.rand(2, 6, 3, 32, 32)
    assert torch.isfinite(Moving()(noise, None)).all()
    with pytest.raises(InputError, match="at least 3 frames"):
        Moving()(drawn.frames[:, :2], None)
    assert Moving()(drawn.frames, drawn.masks) is drawn.masks


def test_gradient_of_found_masks_and_positions_reaches_the_frames_at_the_object():
    drawn = random_sprites(2, seed=101, frames=7).render()
    frames = drawn.frames.clone().requires_grad_()
    measured = Objects()(frames, FPS[:2])
    (gradient,) = torch.autograd.grad(measured.masks.square().sum() + measured.tracks.positions.sum(), frames)
    assert torch.isfinite(gradient).all()
    strength = gradient.abs().sum(2)
    near = torch.nn.functional.max_pool2d(drawn.masks[:, :, 0], 9, 1, 4) > 0.5
    assert float(strength[near].sum()) > 0.8 * float(strength.sum())
    assert not measured.tracks.sigma.requires_grad


def test_positions_are_exact_to_a_fraction_of_a_pixel_and_their_interval_covers_the_truth():
    errors, sigmas = [], []
    for seed, textured in ((201, True), (202, False)):
        scene = random_sprites(8, seed=seed, textured=textured)
        frames = photographed(scene.render().frames)
        measured = Objects()(frames, FPS)
        seen = measured.tracks.visible
        assert float(seen.float().mean()) > 0.8
        errors.append((measured.tracks.positions - scene.trajectory)[seen].abs())
        sigmas.append(measured.tracks.sigma[seen][:, None].expand(-1, 2))
    error, sigma = torch.cat(errors), torch.cat(sigmas)
    assert float(error.median()) < 0.1
    assert 0.85 < float((error < 1.96 * sigma).float().mean()) < 0.99
    assert float(sigma.median()) < 0.15


def test_objects_at_the_border_or_hidden_are_cut_and_not_interpolated():
    scene = random_sprites(2, seed=101, objects=2)
    path = torch.stack([torch.linspace(-10, 74, 17), torch.full((17,), 32.0)], dim=-1)
    crossing = torch.stack([torch.full((17,), 32.0), torch.full((17,), 32.0)], dim=-1)
    both = torch.stack([crossing, path], dim=1).expand(2, -1, -1, -1)  # the second, drawn later, hides the first
    drawn = scene.with_(trajectory=both).render()
    tracks = object_tracks(drawn.frames, drawn.masks, ground(drawn.frames))
    share = drawn.masks[:, :, 0].sum((-2, -1)) / drawn.masks[:, :1, 0].sum((-2, -1))
    assert not tracks.visible[:, :, 0][share < 0.8].any()
    assert tracks.visible[:, :, 0][share > 0.99].float().mean() > 0.9
    edge = (drawn.masks[:, :, 1, :, [0, -1]] > 0.5).any(-1).any(-1)
    assert not tracks.visible[:, :, 1][edge].any()
    assert tracks.look.shape[:3] == tracks.visible.shape


def test_the_probe_follows_first_masks_and_serves_a_verifier():
    drawn = random_sprites(2, seed=1, frames=9).render()
    followed = Objects()(drawn.frames, FPS[:2], drawn.masks[:, :1])
    assert float(iou(followed.masks > 0.5, drawn.masks > 0.5).mean()) > 0.85
    probe = Combined(LucasKanade(), masks=Objects())
    assert probe.name == "lucas_kanade+objects"
    assert probe.measures >= {"masks", "tracks", "flow"}
    frames = drawn.frames.clone().requires_grad_()
    verdict = Verifier(probe, [Term(ConstantAcceleration()), Term(MotionFloor(least=0.2))])(frames, FPS[:2])
    assert verdict.valid.all()
    (gradient,) = torch.autograd.grad(verdict.loss.sum(), frames)
    assert torch.isfinite(gradient).all()
    frozen = drawn.frames[:, :1].expand_as(drawn.frames)
    judge = Verifier(probe, [Term(ConstantAcceleration()), Term(MotionFloor(least=0.2))])
    assert (judge.score(frozen, FPS[:2]).log_reward < judge.score(drawn.frames, FPS[:2]).log_reward).all()
    assert Combined(masks=Objects()).measures == {"masks", "tracks"}


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """A SAM 2 video model with tiny random weights, saved the way real ones are."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    side = 64
    config = Sam2VideoConfig(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [side, side],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": side, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "iou_head_hidden_dim": 32,
        },
        image_size=side, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
        memory_fuser_num_layers=1, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam2")
    Sam2VideoModel(config).save_pretrained(path, safe_serialization=True)
    return path


def test_sam2_gives_masks_of_every_frame_that_can_be_used_with_autograd(sam2):
    drawn = random_sprites(2, seed=1, frames=4, objects=2).render()
    source = SAM2Masks(sam2)
    masks = source(drawn.frames, drawn.masks[:, :1])
    assert masks.shape == drawn.masks.shape
    assert torch.isfinite(masks).all()
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    assert float(iou(masks[:, 0] > 0.5, drawn.masks[:, 0] > 0.5).mean()) > 0.5  # the prompt comes back as it was given
    scale = torch.ones(1, requires_grad=True)
    (masks * scale).sum().backward()
    assert scale.grad is not None
    assert not any(p.requires_grad for p in source.model.parameters())
    measured = Objects(masks=source)(drawn.frames, FPS[:2], drawn.masks[:, :1])
    assert measured.tracks.positions.shape == (2, 4, 2, 2)
    assert not Objects(masks=source).differentiable


def test_sam2_starts_from_what_moves_and_refuses_what_it_cannot_use(sam2, tmp_path):
    drawn = random_sprites(2, seed=101, frames=6).render()
    masks = SAM2Masks(sam2, start=Moving())(drawn.frames, None)
    assert masks.shape == drawn.masks.shape
    with pytest.raises(InputError, match="pass first masks"):
        SAM2Masks(sam2)(drawn.frames, None)
    with pytest.raises(InputError, match="no SAM 2 model"):
        SAM2Masks(tmp_path)


@pytest.mark.slow
def test_moving_objects_are_found_in_simulated_clips():
    from visviva.data.scenes import simulate

    for primitive in ("parabolic_throw", "ramp_down"):
        for clip in simulate(primitive, n=3, seed=3):
            true = clip.masks[None] > 0.5
            found = Moving(objects=true.shape[2])(clip.frames[None], None)
            overlap = iou(in_order(found, best_order(found > 0.5, true)) > 0.5, true)
            assert float(overlap.mean()) > 0.6


def test_recipes_can_name_it():
    from visviva.configs.generate import Guidance
    from visviva.configs.posttrain import Reward
    from visviva.pipelines.posttrain.verifier import object_masks

    assert Reward.model_validate({"mask_source": "objects"}).mask_source == "objects"
    assert Guidance.model_validate({"masks": "objects"}).masks == "objects"
    drawn = random_sprites(2, seed=101, frames=7).render()
    assert torch.equal(object_masks("objects", drawn.frames, None), Moving()(drawn.frames, None))


def test_a_batch_is_its_clips_and_nothing_is_left_to_chance():
    frames = photographed(random_sprites(3, seed=103, objects=2, frames=9).render().frames)
    whole, again = Objects(objects=2)(frames, FPS[:3]), Objects(objects=2)(frames, FPS[:3])
    assert torch.equal(whole.masks, again.masks)
    for i in range(3):
        one = Objects(objects=2)(frames[i : i + 1], FPS[:1])
        assert torch.allclose(whole.masks[i], one.masks[0], atol=1e-4)
        assert torch.equal(whole.tracks.visible[i], one.tracks.visible[0])
        assert torch.allclose(whole.tracks.positions[i], one.tracks.positions[0], atol=1e-3)
