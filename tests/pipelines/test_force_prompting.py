"""Force prompting from clips to clips: trained beside the adapters, saved, put back, and read from the command line."""

import json
from dataclasses import replace

import pytest
import torch
from posttrain_clips import FRAMES, SIZE, dataset
from safetensors.torch import load_file, save_file

from visviva import cli
from visviva.configs import posttrain as settings
from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.wan import WanBackbone
from visviva.models.control import add_control, parse_force, saved, table
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.video import VideoTrainer

PUSH, WIND = "point:x=0.4,y=0.6,angle=30,magnitude=0.8", "wind:angle=90,speed=0.5"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = dataset(tmp_path_factory.mktemp("clips"), 3)
    told(folder, [[PUSH], [], [WIND]])
    return folder


def told(folder, forces):
    """Write the forces of each clip into the rows of a data set."""
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "forces": f}) + "\n" for row, f in zip(rows, forces, strict=True)))


def recipe(clips, tiny, output, **sections):
    base = {
        "output": str(output), "model": {"path": str(tiny), "device": "cpu"}, "trackers": [], "max_steps": 3, "method": "sft",
        "data": {"path": str(clips), "frames": FRAMES, "height": SIZE, "width": SIZE}, "sampler": {"steps": 2},
        "lora": {"rank": 2, "alpha": 2}, "validation": {"every": 0}, "gradient_accumulation": 1, "batch_size": 3,
        "control": {"kind": "force", "blocks": 1}, "optimizer": {"lr": 0.05}, "ema": {"schedule": "none"},
    }  # fmt: skip
    return settings.PosttrainRecipe.model_validate({**base, **sections})


@pytest.fixture(scope="module")
def trained(clips, tiny, tmp_path_factory):
    return run(recipe(clips, tiny, tmp_path_factory.mktemp("run") / "out"))


def condition_of(backbone, *forces):
    condition = backbone.condition(["a ball"], torch.full((1, 3, SIZE, SIZE), 0.3), frames=FRAMES)
    return replace(condition, forces=table([parse_force(f) for f in forces])[None])


@torch.no_grad()
def velocity(backbone, condition):
    noise = torch.randn(1, *backbone.latent_shape(1, FRAMES, SIZE, SIZE)[1:], generator=torch.Generator().manual_seed(3))
    return backbone.velocity(noise, torch.full((1,), 0.5), condition)


def test_before_the_first_update_every_force_gives_the_base_bit_by_bit(clips, tiny, tmp_path):
    trainer, base = VideoTrainer(recipe(clips, tiny, tmp_path / "run")), WanBackbone.load(str(tiny))
    condition = condition_of(base, PUSH)
    assert torch.equal(velocity(trainer.backbone, condition), velocity(base, replace(condition, forces=None)))
    assert sum(saved.is_control(name.removeprefix("transformer.")) for name in trainer.parameters) > 10
    assert any("lora_" in name for name in trainer.parameters)


def test_training_moves_the_branch_and_the_saved_one_answers_to_forces_as_the_trained_one(trained, tiny):
    weights = load_file(trained.weights / saved.FILE)
    assert bool(weights["blocks.0.control.inject.weight"].any())
    backbone = WanBackbone.load(str(tiny))
    load_lora(backbone, trained.weights)
    one, other, none = (velocity(backbone, condition_of(backbone, *f)) for f in ([PUSH], [PUSH.replace("30", "210")], []))
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, none)
    assert not any(p.requires_grad for n, p in backbone.transformer.named_parameters() if saved.is_control(n))


def test_forces_of_the_command_line_and_of_rows_reach_the_clips(trained, tiny, tmp_path):
    rows = [
        {"id": "told", "prompt": "a ball"},
        {"id": "own", "prompt": "a ball", "forces": [WIND]},
        {"id": "b", "prompt": "a ball"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({**row, "seed": 5}) + "\n" for row in rows))
    size = [
        "--frames",
        str(FRAMES),
        "--height",
        str(SIZE),
        "--width",
        str(SIZE),
        "--fps",
        "8",
        "--sampler.steps",
        "2",
        "--crf",
        "0",
    ]
    command = ["generate", str(tmp_path / "p.jsonl"), "--model.path", str(tiny), "--lora", str(trained.weights), *size]
    assert cli.main([*command, "--output", str(tmp_path / "out"), "--force", PUSH, PUSH.replace("0.4", "0.1")]) == 0
    assert cli.main([*command, "--output", str(tmp_path / "rows")]) == 0
    out, rows = (
        {row["id"]: row for row in map(json.loads, (tmp_path / folder / "metadata.jsonl").read_text().splitlines())}
        for folder in ("out", "rows")
    )
    assert all(row["forces"] == [PUSH, PUSH.replace("0.4", "0.1")] for row in out.values()), "the command line stands for all"
    assert rows["own"]["forces"] == [WIND]
    assert "forces" not in rows["told"]
    pushed, blown, still = (
        read_video(tmp_path / folder / made[name]["file_name"]).frames
        for folder, made, name in (("out", out, "own"), ("rows", rows, "own"), ("rows", rows, "told"))
    )
    assert torch.equal(pushed, read_video(tmp_path / "out" / out["told"]["file_name"]).frames)
    assert not torch.equal(pushed, blown)
    assert not torch.equal(blown, still)
    joint = ["--output", str(tmp_path / "joint"), "--limit", "1", "--several-forces", "joint"]
    assert cli.main([*command, *joint, "--force", PUSH, "--force", PUSH.replace("0.4", "0.1")]) == 0
    made = json.loads((tmp_path / "joint" / "metadata.jsonl").read_text())
    assert len(made["forces"]) == 2, "one --force or two"
    assert not torch.equal(pushed, read_video(tmp_path / "joint" / made["file_name"]).frames), "composed is the default"
    windy = ["--output", str(tmp_path / "windy"), "--limit", "1", "--wind", WIND.removeprefix("wind:")]
    assert cli.main([*command, *windy]) == 0
    assert json.loads((tmp_path / "windy" / "metadata.jsonl").read_text())["forces"] == [WIND]


@pytest.mark.parametrize(
    ("force", "words"),
    [
        ("point:x=1.4,y=0.6,angle=30,magnitude=0.8", "outside the picture"),
        ("point:x=0.4,y=0.6,angle=30,magnitude=nan", "magnitude = nan"),
        ("push:x=0.4", "no kind 'push'"),
        (PUSH, "without force control, which would be ignored"),
    ],
)
def test_bad_forces_and_models_without_control_are_one_sentence(force, words, tiny, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a ball"}\n')
    size = ["--frames", str(FRAMES), "--height", str(SIZE), "--width", str(SIZE), "--fps", "8"]
    command = ["generate", str(tmp_path / "p.jsonl"), "--model.path", str(tiny), "--output", str(tmp_path / "out"), *size]
    assert cli.main([*command, "--force", force]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("visviva: ")


def test_rows_of_no_forces_or_none_at_all_are_refused(clips, tiny, tmp_path):
    (tmp_path / "bare").mkdir()
    bare = dataset(tmp_path / "bare", 2)
    with pytest.raises(InputError, match="a clip of the data has no 'forces'"):
        VideoTrainer(recipe(bare, tiny, tmp_path / "run"))
    told(bare, ["point", [PUSH]])
    with pytest.raises(InputError, match="forces is 'point'; give a list of texts"):
        VideoTrainer(recipe(bare, tiny, tmp_path / "run"))
    with pytest.raises(InputError, match=r"control\.kind force"):
        run(recipe(clips, tiny, tmp_path / "run", weights="full"))


def test_a_file_of_another_model_or_of_something_else_is_refused(trained, tiny, tmp_path):
    backbone = WanBackbone.load(str(tiny))
    weights = load_file(trained.weights / saved.FILE)
    save_file({"x": torch.zeros(1)}, tmp_path / saved.FILE)
    with pytest.raises(InputError, match="no force control"):
        saved.load(backbone, tmp_path)
    weights["force_encoder.layers.0.0.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / saved.FILE, metadata={"force_control": '{"blocks": 1}'})
    with pytest.raises(InputError, match="trained beside another one"):
        saved.load(backbone, tmp_path)
    assert saved.load(WanBackbone.load(str(tiny)), tmp_path / "nothing") is False


def test_more_forces_than_fit_and_two_experts_are_refused(tiny):
    with pytest.raises(InputError, match="9 forces at once"):
        table([parse_force(PUSH)] * 9)
    backbone = WanBackbone.load(str(tiny))
    backbone.transformer_2 = backbone.transformer
    with pytest.raises(InputError, match="two experts"):
        add_control(backbone)
