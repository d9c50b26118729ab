"""Every model family through the programs: an update of reward backpropagation, its adapters exported, clips generated."""

import json

import pytest
from posttrain_clips import dataset
from safetensors.torch import load_file
from tiny_backbones import build

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import load
from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.pipelines import generate
from visviva.pipelines.posttrain import run

LAWS = [{"name": "constant_acceleration"}, {"name": "mass_conservation", "weight": 10.0}, {"name": "motion_floor"}]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"), count=2)


def recipe(model, clips, output, frames, **changes):
    data = {"path": str(clips), "frames": frames, "height": 32, "width": 32}
    return PosttrainRecipe.model_validate({
        "output": str(output), "model": {"path": str(model), "device": "cpu"}, "trackers": [], "max_steps": 1, "data": data,
        "sampler": {"steps": 2, "guidance_scale": 2.0}, "lora": {"rank": 2, "alpha": 2}, "validation": {"every": 0},
        "gradient_accumulation": 1, "ema": {"schedule": "none"},
        "reward": {"laws": LAWS, "mask_source": "none", "reference": "base", "sft_weight": 0.1, "checkpointing": "blocks"},
        **changes,
    })  # fmt: skip


@pytest.mark.parametrize("variant", ["wan2.2-t2v", "ltx-video", "cogvideox-t2v", "cogvideox-1.5-i2v", "hunyuan-video", "mochi"])
def test_one_update_of_reward_backpropagation_then_clips_with_its_adapters(variant, clips, tmp_path):
    frames = 7 if variant == "mochi" else 9
    build(variant).save(tmp_path / "model")
    trained = run(recipe(tmp_path / "model", clips, tmp_path / "run", frames))
    (line,) = [json.loads(row) for row in (trained.output / "metrics.jsonl").read_text().splitlines()]
    assert line["grad_norm"] > 0
    assert line["flow_matching"] > 0
    assert {"law/constant_acceleration", "law/mass_conservation", "law/motion_floor"} <= set(line)
    adapters = [load_file(file) for file in trained.weights.rglob("*.safetensors")]
    assert any(bool(t.any()) for group in adapters for name, t in group.items() if "lora_B" in name)
    rows = [{"prompt": "a ball falls", "seed": 1, **({"image": "first.png"} if variant.endswith("i2v") else {})}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if variant.endswith("i2v"):
        picture(tmp_path / "first.png")
    size = {"frames": frames, "height": 32, "width": 32, "fps": 8.0, "sampler.steps": 2}
    asked = {"prompts": str(tmp_path / "prompts.jsonl"), "model.path": str(tmp_path / "model"), "lora": str(trained.weights)}
    output = generate.run(load(GenerateRecipe, None, output=str(tmp_path / "made"), **asked, **size))
    (clip,) = (output / "clips").glob("*.mp4")
    assert read_video(clip).frames.shape == (frames, 3, 32, 32)


def test_grpo_takes_the_noise_levels_of_the_clips_size(clips, tmp_path):
    build("ltx-video").save(tmp_path / "model")
    more = {"method": "grpo", "sampler": {"steps": 3}, "grpo": {"group": 2}, "monitor": {"every": 0}}
    trained = run(recipe(tmp_path / "model", clips, tmp_path / "run", 9, **more))
    (line,) = [json.loads(row) for row in (trained.output / "metrics.jsonl").read_text().splitlines()]
    assert line["taught"] == 1.0
    assert line["grad_norm"] > 0


def picture(path):
    import cv2
    import numpy as np

    pixels = np.full((32, 32, 3), 30, np.uint8)
    pixels[10:20, 10:20] = (0, 0, 255)
    cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize(
    ("variant", "method"), [("mochi", "grpo"), ("cogvideox-1.5-t2v", "refl"), ("cogvideox-1.5-t2v", "sft")]
)
def test_one_update_of_other_objectives(variant, method, clips, tmp_path):
    frames = 7 if variant == "mochi" else 9
    build(variant).save(tmp_path / "model")
    options = {"method": method, "sampler": {"steps": 3}, "grpo": {"group": 2}, "monitor": {"every": 0}}
    trained = run(recipe(tmp_path / "model", clips, tmp_path / "run", frames, **options))
    line = json.loads((trained.output / "metrics.jsonl").read_text())
    assert line["grad_norm"] > 0


def test_objectives_of_flow_models_are_refused_by_others(clips, tmp_path):
    build("cogvideox-t2v").save(tmp_path / "model")
    with pytest.raises(InputError, match=r"cogvideox-t2v predicts v_prediction"):
        run(recipe(tmp_path / "model", clips, tmp_path / "run", 9, method="grpo", sampler={"steps": 3}))
    with pytest.raises(InputError, match=r"shift = 3: CogVideoX"):
        run(recipe(tmp_path / "model", clips, tmp_path / "other", 9, sampler={"steps": 2, "shift": 3.0}))
