"""Batch generation: the same clips for any batch size and number of processes, nothing lost or twice after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from visviva import cli
from visviva.configs.generate import GenerateRecipe
from visviva.configs.schema import load
from visviva.data.clip import Clip
from visviva.data.dataset import ClipDataset
from visviva.data.manifest import Manifest
from visviva.data.prompts import Prompt
from visviva.data.video import read_video, write_video
from visviva.errors import InputError
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.tiny import tiny_wan
from visviva.models.backbones.wan import WanBackbone
from visviva.physics.sprites import random_sprites
from visviva.pipelines import generate

SMALL = {"frames": 5, "height": 32, "width": 32, "fps": 8.0, "sampler.steps": 2, "crf": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "wan"
    tiny_wan("test").save(path)
    return path


@pytest.fixture
def prompts(tmp_path):
    pixels = np.full((48, 40, 3), 30, np.uint8)
    pixels[10:20, 10:20] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "first.png"), pixels)
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"a ball falls, view {i} m", "scene": i // 2, "split": "id"} for i in range(6)]
    rows[1]["image"] = rows[4]["image"] = "first.png"
    rows[3]["seed"] = 11
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(model, prompts, output, **changes):
    fixed = {"prompts": str(prompts), "output": str(output), "model.path": str(model)}
    return load(GenerateRecipe, None, **fixed, **{**SMALL, **changes})


def command(model, prompts, output, *more):
    dotted = [word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    fixed = ["--model.path", str(model), "--output", str(output)]
    return [sys.executable, "-m", "visviva", "generate", str(prompts), *fixed, *dotted, *more]


def rows(output):
    return [json.loads(line) for line in (output / "metadata.jsonl").read_text().splitlines()]


def pixels(output):
    return {row["id"]: read_video(output / row["file_name"]).frames for row in rows(output)}


def test_the_result_is_a_dataset_in_the_order_of_the_prompts(model, prompts, tmp_path):
    output = generate.run(recipe(model, prompts, tmp_path / "out"))
    dataset = ClipDataset(output)
    assert [row["id"] for row in dataset.rows] == [f"{i:06d}" for i in range(6)]
    assert [row["scene"] for row in dataset.rows] == [0, 0, 1, 1, 2, 2]
    assert {row["split"] for row in dataset.rows} == {"id"}
    assert dataset.rows[3]["seed"] == 11
    assert dataset.rows[1]["source"] == "../first.png"
    clip = dataset[4]
    assert clip.frames.shape == (5, 3, 32, 32)
    assert clip.fps == pytest.approx(8.0)
    assert clip.caption == "a ball falls, view 4 m"


def test_batch_size_does_not_change_the_frames(model, prompts, tmp_path):
    settings = recipe(model, prompts, tmp_path / "out")
    backbone = generate.load(settings, torch.device("cpu"))
    size = generate.home(settings, backbone)
    items = [item for item in generate.plan(settings) if item.prompt.source is None]
    together = generate.make(settings, backbone, size, items)
    alone = torch.cat([generate.make(settings, backbone, size, [item]) for item in items])
    # Kernels may add in another order for another batch size: one level of 255 at most.
    assert ((together * 255).round() - (alone * 255).round()).abs().max() <= 1


def test_batch_size_does_not_change_the_clips(model, prompts, tmp_path):
    one = generate.run(recipe(model, prompts, tmp_path / "one", batch_size=1))
    three = generate.run(recipe(model, prompts, tmp_path / "three", batch_size=3))
    assert [r["seed"] for r in rows(one)] == [r["seed"] for r in rows(three)]
    for key, frames in pixels(one).items():
        # Another batch size may add in another order: one rounding, then one of RGB to YUV and back.
        assert (frames.int() - pixels(three)[key].int()).abs().max() <= 4
    clips = torch.stack(list(pixels(one).values())).float()
    assert (clips[:1] - clips[1:]).abs().mean() > 4, "different items have different noise"


def test_a_second_run_does_nothing_and_a_longer_one_only_the_rest(model, prompts, tmp_path, monkeypatch):
    made = []
    make = generate.make
    monkeypatch.setattr(generate, "make", lambda r, b, s, batch: made.extend(i.id for i in batch) or make(r, b, s, batch))
    output = generate.run(recipe(model, prompts, tmp_path / "out", limit=4))
    assert sorted(made) == ["000000", "000001", "000002", "000003"]
    generate.run(recipe(model, prompts, tmp_path / "out", limit=4, batch_size=2))
    assert len(made) == 4
    generate.run(recipe(model, prompts, tmp_path / "out"))
    assert sorted(made[4:]) == ["000004", "000005"]
    assert len(rows(output)) == 6


def test_stopped_after_a_file_and_before_its_line_the_clip_is_made_again(model, prompts, tmp_path, monkeypatch):
    add = Manifest.add

    def stop_at_the_third(self, row):
        if len(self.done) == 2:
            raise KeyboardInterrupt
        add(self, row)

    monkeypatch.setattr(Manifest, "add", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate.run(recipe(model, prompts, tmp_path / "out", batch_size=1))
    assert len(list((tmp_path / "out" / "clips").glob("*.mp4"))) == 3
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    monkeypatch.setattr(Manifest, "add", add)
    generate.run(recipe(model, prompts, tmp_path / "out", batch_size=1))
    assert sorted(r["id"] for r in Manifest.read(tmp_path / "out")) == [f"{i:06d}" for i in range(6)]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_it_had_never_been_killed(model, tmp_path):
    prompts = tmp_path / "many.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"a ball, speed {i}"}) + "\n" for i in range(60)))
    output, manifest = tmp_path / "killed", tmp_path / "killed" / "manifest-00000.jsonl"
    start = command(model, prompts, output, "--batch-size", "1")
    done = []
    for lines in (3, 20):
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while process.poll() is None and (not manifest.exists() or manifest.read_bytes().count(b"\n") < lines):
            assert time.monotonic() < deadline, "it never came to that item"
            time.sleep(0.002)
        assert process.poll() is None, process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(len(Manifest.read(output)))
    assert 2 <= done[0] < done[1] < 60
    subprocess.run(start, check=True, stderr=subprocess.DEVNULL)
    written = [json.loads(line)["id"] for line in manifest.read_text().splitlines()[1:]]
    assert sorted(written) == [f"{i:06d}" for i in range(60)], "nothing lost, nothing twice"
    straight = generate.run(recipe(model, prompts, tmp_path / "straight", batch_size=1))
    assert rows(output) == rows(straight)
    for row in rows(output):
        assert (output / row["file_name"]).read_bytes() == (straight / row["file_name"]).read_bytes()
    assert not [p.name for p in (output / "clips").iterdir() if p.name.startswith(".")], "no half-written files stay behind"


@pytest.mark.slow
def test_two_processes_make_the_clips_of_one(model, prompts, tmp_path):
    start = command(model, prompts, tmp_path / "two", "--batch-size", "3", "--num-processes", "2", "--model.device", "cpu")
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(start, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    shards = sorted(p.name for p in (tmp_path / "two").glob("manifest-*.jsonl"))
    assert shards == ["manifest-00000.jsonl", "manifest-00001.jsonl"]
    one = generate.run(recipe(model, prompts, tmp_path / "one", batch_size=1))
    assert rows(one) == rows(tmp_path / "two")
    for key, frames in pixels(one).items():
        assert (frames.int() - pixels(tmp_path / "two")[key].int()).abs().max() <= 4
    before = [(tmp_path / "two" / s).read_bytes() for s in shards]
    generate.run(recipe(model, prompts, tmp_path / "two"))  # one process continues what two began: nothing is left to do
    assert [(tmp_path / "two" / s).read_bytes() for s in shards] == before


def test_a_dataset_gives_captions_first_frames_and_columns(model, tmp_path):
    frames = torch.rand(5, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "data" / "clips" / "a.mp4", frames, 8)
    row = {"file_name": "clips/a.mp4", "caption": "a ball", "fps": 8.0, "primitive": "ramp_up", "split": "ood", "scene": 5}
    (tmp_path / "data" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    output = generate.run(recipe(model, tmp_path / "data", tmp_path / "out"))
    (made,) = rows(output)
    kept = ("primitive", "split", "scene", "caption", "fps")
    assert {key: made[key] for key in kept} == {key: row[key] for key in kept}
    assert made["source"] == "../data/clips/a.mp4"


def test_more_samples_of_a_row_differ(model, prompts, tmp_path):
    output = generate.run(recipe(model, prompts, tmp_path / "out", limit=1, samples=2))
    assert [row["id"] for row in rows(output)] == ["000000", "000000-sample1"]
    first, second = pixels(output).values()
    assert (first.int() - second.int()).abs().float().mean() > 4


def test_other_settings_and_other_prompts_do_not_mix(model, prompts, tmp_path):
    generate.run(recipe(model, prompts, tmp_path / "out", limit=1))
    with pytest.raises(InputError, match=r"begun with other settings \(sampler: "):
        generate.run(recipe(model, prompts, tmp_path / "out", **{"sampler.steps": 3}))
    prompts.write_text('{"prompt": "something else"}\n')
    with pytest.raises(InputError, match="was made from another prompt"):
        generate.run(recipe(model, prompts, tmp_path / "out"))


def test_another_frame_rate_and_another_first_frame_do_not_mix(model, prompts, tmp_path):
    generate.run(recipe(model, prompts, tmp_path / "out", limit=2))
    with pytest.raises(InputError, match=r"begun with other settings \(fps: 8.0 there, 16.0 now\)"):
        generate.run(recipe(model, prompts, tmp_path / "out", limit=2, fps=16.0))
    picture = tmp_path / "first.png"
    held, content = picture.stat().st_size, picture.read_bytes()
    picture.write_bytes(content[:-1] + b"x")  # the same name and size
    assert picture.stat().st_size == held
    with pytest.raises(InputError, match=r"'000001'.*was made from another prompt, first frame, seed, fps or force"):
        generate.run(recipe(model, prompts, tmp_path / "out", limit=2))
    picture.write_bytes(content)
    (tmp_path / "moved.png").write_bytes(content)  # another name, the same picture
    prompts.write_text(prompts.read_text().replace("first.png", "moved.png"))
    generate.run(recipe(model, prompts, tmp_path / "out", limit=2))


def test_another_rate_of_a_row_and_other_true_masks_change_the_condition(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    prompt = Prompt("a", "a ball", tmp_path / "a.mp4", fps=8.0)
    item = generate.Item("a", prompt, 3)
    assert item.condition == generate.Item("a", replace(prompt), 3).condition
    others = [
        generate.Item("a", replace(prompt, fps=9.0), 3),
        generate.Item("a", prompt, 4),
        generate.Item("a", prompt, 3, True),
    ]
    (tmp_path / "a.npz").write_bytes(b"masks")
    assert len({i.condition for i in [item, *others]}) == 4
    (tmp_path / "a.npz").write_bytes(b"other")
    assert generate.Item("a", prompt, 3, True).condition != others[2].condition


def test_sizes_the_model_cannot_make_or_does_not_know(model, prompts, tmp_path):
    with pytest.raises(InputError, match="frames = 6"):
        generate.run(recipe(model, prompts, tmp_path / "out", frames=6))
    with pytest.raises(InputError, match=r"home size of this model is not known; give frames, fps"):
        generate.run(recipe(model, prompts, tmp_path / "out", frames=None, fps=None))


def test_nothing_to_generate_and_a_wrong_model_are_one_sentence(model, prompts, tmp_path, capsys):
    assert cli.main(["generate", "--output", str(tmp_path / "out")]) == 2
    assert "nothing to generate" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["generate", str(prompts), "--model.path", str(tmp_path / "empty"), "--output", str(tmp_path / "out")]) == 2
    assert "no model_index.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    backbone = tiny_wan("test")
    backbone.add_lora(rank=4)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in backbone.trainable():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    count = backbone.save_lora(folder)
    return folder, count


class TestGuidance:
    def test_it_changes_the_clips_and_the_record_says_so(self, model, prompts, tmp_path):
        plain = generate.run(recipe(model, prompts, tmp_path / "plain", limit=2))
        laws = [{"name": "constant_acceleration", "options": {"form": "eulerian"}}, {"name": "motion_floor"}]
        asked = {"guidance.scale": 1.0, "guidance.laws": laws, "guidance.masks": "none"}
        guided = generate.run(recipe(model, prompts, tmp_path / "guided", limit=2, batch_size=2, **asked))
        for key, frames in pixels(plain).items():
            assert (frames.int() - pixels(guided)[key].int()).abs().float().mean() > 0.1
        assert [row["guided"] for row in rows(guided)] == [True, True]
        with pytest.raises(InputError, match="guidance"):
            generate.run(recipe(model, prompts, tmp_path / "plain", limit=2, **asked))

    def test_a_law_that_a_frozen_clip_satisfies_needs_an_anchor(self, model, prompts, tmp_path):
        asked = {"guidance.scale": 1.0, "guidance.laws": [{"name": "constant_acceleration"}]}
        with pytest.raises(InputError, match="anchor"):
            generate.run(recipe(model, prompts, tmp_path / "out", **asked))

    def test_tracking_without_true_masks_says_what_is_missing(self, model, prompts, tmp_path):
        with pytest.raises(InputError, match=r"'000000': best\.masks or guidance\.masks is 'track'"):
            generate.run(recipe(model, prompts, tmp_path / "out", **{"guidance.scale": 1.0, "guidance.masks": "track"}))

    def test_true_masks_of_a_dataset_are_tracked(self, model, tmp_path):
        scene = random_sprites(2, seed=1, frames=9).render()
        for i in range(2):
            masks = scene.masks[i] > 0.5
            row = Clip(scene.frames[i], 24.0, caption="a ball falls", masks=masks).write(tmp_path / "data", str(i))
            with (tmp_path / "data" / "metadata.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        asked = {"guidance.scale": 1.0, "guidance.masks": "track", "guidance.last": 1, "frames": 9, "height": 64, "width": 64}
        output = generate.run(recipe(model, tmp_path / "data", tmp_path / "out", **asked))
        assert [row["guided"] for row in rows(output)] == [True, True]
        item = generate.plan(recipe(model, tmp_path / "data", tmp_path / "out"))[1]
        first = generate.first_masks(item, generate.Size(9, 64, 64, 24.0))
        assert torch.equal(first[0], (scene.masks[1, 0, 0] > 0.5).float())


class TestLora:
    def test_every_adapter_is_matched_and_changes_the_clip(self, model, adapter, prompts, tmp_path):
        folder, count = adapter
        assert load_lora(WanBackbone.load(model), folder) == count > 0
        plain = generate.run(recipe(model, prompts, tmp_path / "plain", limit=1))
        tuned = generate.run(recipe(model, prompts, tmp_path / "tuned", limit=1, lora=str(folder)))
        a, b = next(iter(pixels(plain).values())), next(iter(pixels(tuned).values()))
        assert (a.int() - b.int()).abs().float().mean() > 1
        assert rows(tuned)[0]["lora"] != rows(plain)[0]["lora"] is None

    def test_adapters_of_two_experts_are_both_loaded(self, tmp_path):
        from diffusers import WanImageToVideoPipeline

        def experts():
            one, two = tiny_wan("test", seed=0), tiny_wan("test", seed=1)
            parts = {**one.pipeline.components, "transformer_2": two.transformer}
            return WanBackbone(WanImageToVideoPipeline(**parts, boundary_ratio=0.9, expand_timesteps=True))

        trained = experts()
        trained.add_lora(rank=2)
        count = trained.save_lora(tmp_path)
        assert load_lora(experts(), tmp_path) == count
        with pytest.raises(InputError, match="second expert"):
            load_lora(tiny_wan("test"), tmp_path)

    def test_adapters_of_another_model_are_refused(self, adapter, tmp_path):
        from safetensors.torch import load_file, save_file

        folder, _ = adapter
        tensors = load_file(folder / "pytorch_lora_weights.safetensors")
        foreign = {key.replace("blocks.", "layers."): value for key, value in tensors.items()}
        save_file(foreign, tmp_path / "foreign.safetensors")
        with pytest.raises(InputError, match="adapter"):
            load_lora(tiny_wan("test"), tmp_path / "foreign.safetensors")

    def test_missing_or_broken_files_are_named(self, tmp_path):
        with pytest.raises(InputError, match="no adapters at"):
            load_lora(tiny_wan("test"), tmp_path)
        (tmp_path / "a.safetensors").write_bytes(b"no")
        with pytest.raises(InputError, match="not a safetensors file"):
            load_lora(tiny_wan("test"), tmp_path / "a.safetensors")
