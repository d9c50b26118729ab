"""Text to motion: the diffusers pipeline, guidance, projection, the verb and its files; tiny sizes, real classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from tiny_motion import tiny_pipeline

from visviva.cli import main
from visviva.configs.motion import MotionRecipe
from visviva.data.motions.axes import upright
from visviva.data.motions.folder import facing
from visviva.data.motions.humanml3d import features, joints_of
from visviva.data.motions.reading import read_motion
from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.models.motion.text import encode
from visviva.physics.motion_laws import MotionTerm, MotionVerifier, Penetration
from visviva.pipelines.motion.generate import generate, plan, unlike_training
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.smpl import rigid
from visviva.pipelines.motion.steering import LawGuidance, Projection, features_of, verifier_of
from visviva.pipelines.motion.tempo import quickened

WORDS = ["a", "person", "walk", "jump", "forward"]


def moving(frames=40, fps=20.0):
    """Joints (1, T, 22, 3) of a walking action, z up."""
    from visviva.data.actions import draw

    return draw(["walk"], seed=0, fps=fps, seconds=frames / fps).joints


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(WORDS)


def scheduler(kind=DDIMScheduler, steps=50):
    more = {} if kind is DPMSolverMultistepScheduler else {"clip_sample": False}
    return kind(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2", prediction_type="sample", **more)


def test_saved_and_read_back_by_diffusers(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "m")
    found = {p.suffix for p in (tmp_path / "m").rglob("*") if p.is_file()}
    assert found == {".json", ".safetensors"}
    again = load(tmp_path / "m")
    assert again.tokenizer is None
    weights = again.transformer.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in pipeline.transformer.state_dict().items())
    one, two = (p(["a person walks"], seconds=1.0, steps=3).joints for p in (pipeline, again))
    assert torch.allclose(one, two, atol=1e-5)  # sums over other addresses may be rounded otherwise
    with pytest.raises(InputError, match="no motion model"):
        load(tmp_path)


def test_the_seed_decides_and_the_batch_does_not(pipeline):
    both = pipeline(["a person walks", "jump"], seconds=1.0, steps=3, seeds=[4, 5]).joints
    alone = pipeline(["jump"], seconds=1.0, steps=3, seeds=[5]).joints
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[1], pipeline(["jump"], seconds=1.0, steps=3, seeds=[6]).joints[0], atol=1e-3)


def test_motions_of_other_lengths_do_not_disturb_each_other(pipeline):
    both = pipeline(["a person", "jump"], seconds=[1.0, 2.0], steps=3, seeds=[4, 5])
    alone = pipeline(["a person"], seconds=1.0, steps=3, seeds=[4])
    assert both.lengths.tolist() == [20, 40]
    assert torch.allclose(both.joints[0, :20], alone.joints[0], atol=1e-4)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
def test_any_scheduler_that_predicts_the_sample_will_do(pipeline, kind):
    other = MotionPipeline(pipeline.transformer, pipeline.text_encoder, scheduler(kind))
    torch.manual_seed(0)
    assert other(["jump"], seconds=1.0, steps=4).joints.isfinite().all()
    with pytest.raises(InputError, match="predicts 'epsilon'"):
        MotionPipeline(pipeline.transformer, pipeline.text_encoder, DDIMScheduler())


def test_guidance_on_text_extrapolates(pipeline):
    none, text, far = (pipeline(["jump"], seconds=1.0, steps=1, text_guidance=w).features for w in (0.0, 1.0, 3.0))
    assert torch.allclose(far, none + 3.0 * (text - none), atol=1e-4)


def test_a_motion_at_another_speed_is_that_of_another_rate_read_faster(pipeline):
    fast = pipeline(["jump"], seconds=1.0, fps=20.0, steps=3, speed=1.25)
    slow = pipeline(["jump"], seconds=1.25, fps=16.0, steps=3)
    assert torch.allclose(fast.joints, slow.joints, atol=1e-4)
    v, a = ((20.0**k * fast.joints.diff(n=k, dim=1)).norm(dim=-1) for k in (1, 2))
    v0, a0 = ((16.0**k * slow.joints.diff(n=k, dim=1)).norm(dim=-1) for k in (1, 2))
    assert torch.allclose(v, 1.25 * v0, atol=1e-2)
    assert torch.allclose(a, 1.25**2 * a0, atol=0.1)


def test_features_played_faster_are_those_of_the_faster_motion():
    t = torch.linspace(0, 2.9, 30)[:, None]
    body = moving()[0, 0] @ upright("y")
    facing_z = facing(body[None])[0]
    joints = facing_z + torch.stack((0.2 * t, 0.05 * (3 * t).sin(), 0.7 * t + 0.1 * t * t), -1)
    slow, fast = (features(joints, fps) for fps in (16.0, 20.0))
    assert torch.allclose(quickened(slow, 1.25)[:, :259], fast[:, :259], atol=1e-4)
    assert torch.allclose(quickened(quickened(slow, 1.25), 0.8), slow, atol=1e-5)
    assert torch.allclose(joints_of(quickened(slow, 1.25), 20.0), joints_of(slow, 16.0), atol=1e-5)


def test_projections_see_the_motion_as_it_is_played(pipeline):
    seen = []

    def look(clean, lengths, fps):
        seen.append((pipeline.transformer.denormalised(clean), fps))
        return clean

    found = pipeline(["jump"], seconds=1.0, steps=1, speed=1.5, project=look, projected=1)
    assert torch.allclose(seen[0][0], found.features, atol=1e-4)
    assert seen[0][1].tolist() == [20.0]


def test_an_identity_projection_is_plain_ddim_and_a_true_one_ends_in_its_space(pipeline):
    plain = pipeline(["jump"], seconds=1.0, steps=5).features
    same = pipeline(["jump"], seconds=1.0, steps=5, project=lambda x, n, f: x).features
    assert torch.equal(plain, same)
    held = pipeline(["jump"], seconds=1.0, steps=5, project=lambda x, n, f: torch.where(torch.arange(263) < 100, 0.0, x))
    wanted = pipeline.transformer.denormalised(torch.zeros(263))[:100]
    assert torch.allclose(held.features[..., :100], wanted.expand(1, 20, -1), atol=1e-4)


def test_law_guidance_lowers_the_residual(pipeline):
    verifier = MotionVerifier([MotionTerm(Penetration(floor=0.2))], allow_trivial=True)
    guide = LawGuidance(pipeline.transformer, verifier, inner=4, radius=0.3)
    plain = pipeline(["jump"], seconds=1.0, steps=8).joints
    guided = pipeline(["jump"], seconds=1.0, steps=8, guide=guide, guided=4).joints
    one, two = (float(verifier(x, 20.0).loss) for x in (plain, guided))
    assert two < 0.8 * one
    assert len(guide.losses) == 16
    with pytest.raises(InputError, match="no law of motion 'skate'"):
        verifier_of({"skate": 1.0})


def test_projection_stands_and_its_features_are_true(pipeline):
    joints = moving() - torch.tensor([0.0, 0.0, 0.03])
    clean = pipeline.transformer.normalised(features_of(joints, 20.0))
    lengths, fps = torch.tensor([40]), torch.tensor([20.0])
    found = Projection(pipeline.transformer)(clean, lengths, fps)
    made = pipeline.joints(pipeline.transformer.denormalised(found), 20.0)
    assert float(Penetration()(made, 20.0, lengths).value) < 1e-3
    again = pipeline.transformer.normalised(features_of(made, 20.0))
    assert torch.allclose(found[:, :-1], again[:, :-1], atol=0.02)


def test_gradient_through_the_last_steps(pipeline):
    network = pipeline.transformer.requires_grad_(True)
    pipeline(["jump"], seconds=1.0, steps=4, grad_steps=2).joints.square().mean().backward()
    grown = [p.grad is not None and bool(p.grad.any()) for p in network.parameters()]
    network.requires_grad_(False)
    network.zero_grad()
    assert sum(grown) > len(grown) // 2
    assert not pipeline(["jump"], seconds=1.0, steps=4).joints.requires_grad


def test_what_is_asked_wrongly_is_said(pipeline):
    for options, said in (
        ({"seconds": 100.0}, "at most 10 s"),
        ({"seconds": [1.0, 2.0]}, "2 lengths"),
        ({"steps": 100}, "1 to 50"),
        ({"speed": 0.01}, "0.1 to 10"),
        ({"fps": 1000.0}, "1 to 120"),
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
        ({"noise": torch.zeros(1, 3, 263), "seconds": 1.0}, r"\(1, 20, 263\) is wanted"),
    ):
        with pytest.raises(InputError, match=said):
            pipeline(["jump"], **options)
    for nothing in ([], "a person walks"):  # a text alone would be read letter by letter
        with pytest.raises(InputError, match="give a list"):
            pipeline(nothing)


def test_long_captions_are_cut_in_training_only(pipeline):
    long = "jump " * 30
    (tokens, there), (short, _) = (encode(pipeline.text_encoder, None, [text], cut=True) for text in (long, "jump " * 24))
    assert torch.equal(tokens, short)
    assert there.shape == (1, 24)
    with pytest.raises(InputError, match="30 words and marks"):
        pipeline([long], seconds=1.0, steps=1)


@pytest.mark.parametrize("damage", ["index", "weights", "cut", "config"])
def test_damaged_models_are_said(pipeline, tmp_path, damage):
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    if damage == "index":
        (tmp_path / "model_index.json").write_text("{}")
    elif damage == "weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        (tmp_path / "transformer" / "config.json").write_text("{nope")
    with pytest.raises(InputError, match="could not be loaded as a motion model"):
        load(tmp_path)


def test_a_rigid_body_follows_joints():
    joints = moving()[0]
    motion, error = rigid(joints, 20.0)
    assert error < 0.02
    length = (motion.positions[:, 1:] - motion.positions[:, list(motion.parents[1:])]).norm(dim=-1)
    assert float(length.std(0).max()) < 1e-5


class TestVerb:
    @pytest.fixture
    def model(self, pipeline, tmp_path):
        pipeline.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    def arguments(self, model, output, *more):
        short = ["--seconds", "1", "--sampler.steps", "2", "--model", model, "--output", str(output)]
        return ["motion", "generate", *more, *short]

    def test_files_of_every_kind_and_resuming(self, model, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(self.arguments(model, out, "a person walks", "a yak jumps", "--count", "2")) == 0
        assert "yak" in capsys.readouterr().out
        rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == ["a-person-walks", "a-person-walks-sample1", "a-yak-jumps", "a-yak-jumps-sample1"]
        assert rows[2]["not_understood"] == ["yak"]
        assert len({row["seed"] for row in rows}) == 4
        joints, bvh = (read_motion(out / rows[0][kind]) for kind in ("joints", "bvh"))
        assert (len(joints), joints.fps, len(joints.names)) == (20, 20.0, 22)
        assert torch.allclose(bvh.positions[:, 0], joints.positions[:, 0], atol=0.05)
        smpl = read_motion(out / rows[0]["smpl"])
        assert torch.allclose(smpl.positions[:, 0], joints.positions[:, 0], atol=1e-4)
        assert read_video(out / rows[0]["video"]).frames.shape[0] == 20
        before = (out / rows[1]["video"]).stat().st_mtime_ns
        assert main(self.arguments(model, out, "a person walks", "a yak jumps", "--count", "3")) == 0
        assert (out / rows[1]["video"]).stat().st_mtime_ns == before
        assert len((out / "metadata.jsonl").read_text().splitlines()) == 6
        assert main(self.arguments(model, out, "jump", "--seed", "1", "--speed", "1.3")) == 2
        assert "begun with other settings" in capsys.readouterr().err

    def test_texts_from_a_file_and_one_noise_whatever_the_batch(self, model, tmp_path):
        table = tmp_path / "texts.jsonl"
        table.write_text('{"prompt": "jump", "seed": 7}\n{"prompt": "a person", "id": "who"}\n')
        for size in ("1", "4"):
            assert main(self.arguments(model, tmp_path / size, str(table), "--batch-size", size)) == 0
        one, four = (np.load(tmp_path / size / "motions" / "who.npz", allow_pickle=False)["positions"] for size in "14")
        assert np.allclose(one, four, atol=1e-3)
        assert json.loads((tmp_path / "1" / "metadata.jsonl").read_text().splitlines()[0])["seed"] == 7

    def test_no_text_and_twice_the_same_are_said(self):
        with pytest.raises(InputError, match="no text"):
            plan(MotionRecipe(action="generate"))
        with pytest.raises(InputError, match="twice"):
            plan(MotionRecipe(action="generate", files=["jump", "Jump!"]))
        with pytest.raises(InputError, match="empty text"):
            plan(MotionRecipe(action="generate", files=[" "]))

    def test_a_motion_file_is_no_text_and_long_texts_keep_their_own_names(self, tmp_path):
        (tmp_path / "walk.npy").write_bytes(b"")
        with pytest.raises(InputError, match="a file or folder, and no text"):
            plan(MotionRecipe(action="generate", files=[str(tmp_path / "walk.npy")]))
        long = "a person walks " * 10
        items = plan(MotionRecipe(action="generate", files=[long + "left", long + "right", "!?"]))
        assert len({item.stem for item in items}) == 3
        assert all(len(item.id) <= 60 and not item.id.startswith("-") for item in items)

    def test_texts_that_are_too_long_to_be_read_are_refused_before_anything_is_made(self, model, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(self.arguments(model, out, "jump", "a person walks " * 9)) == 2
        assert "27 words and marks; this model reads 24" in " ".join(capsys.readouterr().err.split())
        assert not list(out.rglob("*.npz"))

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"seconds": 20.0}, "at most 10 s"),
            ({"sampler": {"steps": 99}}, "1 to 50"),
            ({"sampler": {"steps": 2, "law_guidance": 1.0, "laws": {"skate": 1.0}}}, "no law of motion 'skate'"),
        ],
    )
    def test_what_is_refused_leaves_the_folder_free(self, wrong, said, model, tmp_path):
        out = tmp_path / "out"
        right = {"action": "generate", "files": ["jump"], "seconds": 1.0, "sampler": {"steps": 2}, "model": model}
        good, bad = (MotionRecipe.model_validate(right | more | {"output": str(out)}) for more in ({}, wrong))
        with pytest.raises(InputError, match=said):
            generate(bad)
        assert not list(out.glob("manifest*"))
        generate(good)
        with pytest.raises(InputError, match="begun with other settings"):
            generate(bad)
        assert len((out / "manifest-00000.jsonl").read_text().splitlines()) == 2

    def test_a_text_without_a_known_word_is_refused(self, model, tmp_path, capsys):
        assert main(self.arguments(model, tmp_path / "out", "zebras zorb")) == 2
        assert "the model knows no word of 'zebras zorb'" in capsys.readouterr().err

    def test_what_the_shipped_model_was_not_trained_for_is_said(self, model):
        def notes(**given):
            return unlike_training(MotionRecipe(action="generate", files=["a walk"], **given))

        assert notes() == notes(frame_rate=30.0) == notes(seconds=4.0) == notes(speed=1.5) == []
        assert "trained at 10 to 30 frames/s (over the speed), asked for 120" in notes(frame_rate=120.0, seconds=0.5)[0]
        assert "asked for 5" in notes(frame_rate=10.0, speed=2.0)[0]
        assert "trained on 40 frames at a time, asked for 200" in notes(seconds=10.0)[0]
        assert notes(model=model, frame_rate=120.0) == [], "nothing is known of a model without its recipe"

    def test_only_whole_words_are_not_understood(self, model, tmp_path):
        assert main(self.arguments(model, tmp_path / "out", "a yak", "a person kayaks")) == 0
        rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
        assert [row["not_understood"] for row in rows] == [["yak"], ["kayaks"]]
