"""Pre-training: both stages learn, resume exactly, and leave a pipeline that plain diffusers loads."""

import json
from pathlib import Path

import pytest
import torch
from posttrain_clips import dataset
from safetensors.torch import load_file

from visviva.configs.pretrain import AutoencoderStage, DenoiserStage, PretrainRecipe
from visviva.configs.schema import load
from visviva.errors import InputError
from visviva.models.backbones.wan import WanBackbone
from visviva.optim.muon import hidden_matrix
from visviva.pipelines.posttrain import checkpoint
from visviva.pipelines.pretrain import autoencoder, denoiser, run
from visviva.pipelines.pretrain.clips import load_clips, mirrored
from visviva.pipelines.pretrain.schedule import Log, generator, learning_rate


def _recipe(data: Path, out: Path, **changes: object) -> PretrainRecipe:
    settings = {
        "data": str(data), "validation": str(data), "out": str(out), "size": "test", "precision": "fp32", "device": "cpu",
        "autoencoder": AutoencoderStage(steps=6, batch_size=2, frames=5, warmup=2),
        "denoiser": DenoiserStage(steps=6, batch_size=2, warmup=2), "save_every": 2, "validate_every": 3, **changes,
    }  # fmt: skip
    return PretrainRecipe(**settings)


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("clips"), 4)


def _weights(model: Path) -> dict[str, torch.Tensor]:
    return {f"{f.parent.name}/{k}": v for f in sorted(model.rglob("*.safetensors")) for k, v in load_file(f).items()}


def test_a_stopped_run_continues_to_the_same_bits(clips_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(_recipe(clips_folder, tmp_path / "whole"))
    stages = {"autoencoder": autoencoder._update, "denoiser": denoiser._update}
    for name, module in (("autoencoder", autoencoder), ("denoiser", denoiser)):
        calls = iter(range(100))

        def killed(*arguments: object, name: str = name, calls: object = calls) -> float:
            if next(calls) == 4:
                raise KeyboardInterrupt
            return stages[name](*arguments)

        monkeypatch.setattr(module, "_update", killed)
        with pytest.raises(KeyboardInterrupt):
            run(_recipe(clips_folder, tmp_path / "killed"))
        monkeypatch.setattr(module, "_update", stages[name])
    again = run(_recipe(clips_folder, tmp_path / "killed"))
    expected, found = _weights(whole), _weights(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    for curve in ("autoencoder.jsonl", "denoiser.jsonl"):
        assert (tmp_path / "whole" / curve).read_text() == (tmp_path / "killed" / curve).read_text()


def test_a_deadline_stops_with_a_checkpoint_and_a_usable_model(clips_folder: Path, tmp_path: Path) -> None:
    model = run(_recipe(clips_folder, tmp_path / "short", stop_after=1e-3))
    assert WanBackbone.load(model).family == "wan2.2-ti2v"
    assert [p.name for p in (tmp_path / "short" / "checkpoints-autoencoder").iterdir()] == ["step-00000001"]


def test_both_losses_fall_and_latents_are_standardised(clips_folder: Path, tmp_path: Path) -> None:
    recipe = _recipe(
        clips_folder, tmp_path, autoencoder=AutoencoderStage(steps=80, batch_size=4, frames=5, lr=5e-3, warmup=5),
        denoiser=DenoiserStage(steps=60, batch_size=8, warmup=5, lr=3e-3, muon_lr=5e-3), validate_every=20, save_every=1000,
    )  # fmt: skip
    model = run(recipe)
    psnr = [json.loads(line)["psnr"] for line in (tmp_path / "autoencoder.jsonl").read_text().splitlines()]
    loss = [json.loads(line)["validation"] for line in (tmp_path / "denoiser.jsonl").read_text().splitlines()]
    assert psnr[-1] > psnr[0] + 1
    assert loss[-1] < 0.8 * loss[0]
    clips = load_clips(str(clips_folder))
    latents = WanBackbone.load(model).encode(clips.floats(torch.arange(4)))
    assert abs(float(latents.mean())) < 0.1
    assert abs(float(latents.std()) - 1) < 0.15
    assert f"held-out round trip {psnr[-1]:.2f} dB" in (model / "README.md").read_text()
    assert json.loads((model / "recipe.json").read_text()) == json.loads(recipe.model_dump_json())
    assert (model / "curves.png").stat().st_size > 1000


def test_stale_latents_are_never_reused(clips_folder: Path, tmp_path: Path) -> None:
    from visviva.models.backbones.tiny import tiny_wan

    clips = load_clips(str(clips_folder))
    first, _ = denoiser.cached_latents(tiny_wan("test", seed=0), clips, False, tmp_path)
    again, _ = denoiser.cached_latents(tiny_wan("test", seed=0), clips, False, tmp_path)
    other, captions = denoiser.cached_latents(tiny_wan("test", seed=1), clips, True, tmp_path)
    assert torch.equal(first, again)
    assert len(other) == len(captions) == 2 * len(first)
    assert not torch.equal(other[: len(first)], first)


def test_optimizers_share_out_every_parameter_once() -> None:
    from visviva.models.backbones.tiny import tiny_wan

    parameters = dict(denoiser._parameters(tiny_wan("test")))
    optimizer = denoiser.optimizer_of(parameters, DenoiserStage())
    given = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in parameters.values())
    assert [(g["algorithm"], g["lr"]) for g in optimizer.param_groups] == [("matrix", 2e-3), ("adamw", 1e-3)]
    hidden = optimizer.param_groups[0]["param_names"]
    assert hidden == [n for n, p in parameters.items() if n.startswith("transformer.") and hidden_matrix(n, p)]


def test_the_optimizer_trains_as_torch_s_pair_does() -> None:
    """As torch.optim.Muon and AdamW with these rates, which earlier versions used (torch iterates in bfloat16)."""
    from visviva.models.backbones.tiny import tiny_wan

    ours, theirs = (dict(denoiser._parameters(tiny_wan("test"))) for _ in range(2))
    optimizer = denoiser.optimizer_of(ours, stage := DenoiserStage())
    names = optimizer.param_groups[0]["param_names"]
    decay = stage.weight_decay
    pair = (
        torch.optim.Muon([theirs[n] for n in names], lr=stage.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for n, p in theirs.items() if n not in names], lr=stage.lr, betas=(0.9, 0.95), weight_decay=decay),
    )
    start = {n: p.detach().clone() for n, p in ours.items()}
    for step in range(3):
        for n, p in ours.items():
            p.grad = torch.randn(p.shape, generator=generator(step, n, step))
            theirs[n].grad = p.grad.clone()
        for each in (optimizer, *pair):
            each.step()
    for n, p in ours.items():
        moved = (p.detach() - start[n]).norm()
        assert (p.detach() - theirs[n].detach()).norm() <= (0.02 if n in names else 1e-5) * moved, n


def test_a_checkpoint_of_other_optimizers_is_named(clips_folder: Path, tmp_path: Path) -> None:
    recipe = _recipe(clips_folder, tmp_path)
    run(recipe)
    path = checkpoint.latest(tmp_path / "checkpoints-denoiser")
    saved = checkpoint.load(path)
    tensors = {**saved.tensors, "muon": saved.tensors["optimizer"], "adamw": {}}
    del tensors["optimizer"]
    checkpoint.save(path.parent, saved.step - 1, tensors, {})
    checkpoint.save(path.parent, saved.step, tensors, {})
    with pytest.raises(InputError, match=r"states of the optimizers adamw, muon, this .* with optimizer; delete '.*' to"):
        run(recipe)


def test_noise_levels_follow_the_shifted_logit_normal() -> None:
    levels = denoiser.noise_levels(20000, 3.0, generator(0, "test", 0))
    assert levels.min() > 0
    assert levels.max() < 1
    assert abs(float(levels.median()) - 0.75) < 0.01


def test_update_streams_differ_by_seed_stage_and_step() -> None:
    draws = {
        float(torch.randn((), generator=generator(seed, stage, step)))
        for seed in (0, 1) for stage in ("autoencoder", "denoiser") for step in range(50)
    }  # fmt: skip
    assert len(draws) == 200


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(s, 100, 10, 0.4) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == 1.0
    assert 0 < rates[99] < 0.05
    assert rates[:50] == sorted(rates[:50])


def test_mirroring_exchanges_left_and_right() -> None:
    caption = "a box slides up a ramp, speed 2.34 m/s, 25 degrees rising to the left, friction 0.17"
    assert "to the right, friction" in mirrored(caption)
    assert mirrored(mirrored(caption)) == caption


def test_the_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", 0)
    for step in (2, 4, 6):
        log.write(step=step, loss=1.0)
    Log(tmp_path / "log.jsonl", 4)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 4]


def test_clips_of_different_sizes_are_named(clips_folder: Path, tmp_path: Path) -> None:
    from visviva.data.clip import Clip
    from visviva.data.dataset import write_rows

    rows = [Clip(torch.rand(9, 3, s, s), 16.0, caption="x").write(tmp_path, f"{s}", arrays="none") for s in (32, 48)]
    write_rows(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(InputError, match="clip 1 has shape"):
        load_clips(str(tmp_path))


def test_the_shipped_recipe_is_valid() -> None:
    assert load(PretrainRecipe, "pretrain-tiny-wan").size == "default"
