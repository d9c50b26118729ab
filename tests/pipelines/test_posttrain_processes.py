"""Post-training through the command line in real processes: how the batch is split does not matter, kills do not matter."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from posttrain_clips import SMALL, dataset, lines, posttrain, tiny_model
from safetensors.torch import load_file

from visviva.pipelines.posttrain import checkpoint
from visviva.pipelines.posttrain.__main__ import main

DAMPED = ["--optimizer.options", "eps", "1e-3"]
"""Adam divides by the gradient's size: with a tiny eps, rounding of gradients near zero would become a full step."""
CONFIGS = Path(__file__).parents[2] / "visviva" / "configs" / "accelerate"


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Arguments that every run of this file shares."""
    folder = tmp_path_factory.mktemp("shared")
    data, tiny = dataset(folder / "data"), tiny_model(folder / "tiny")
    return [*SMALL, "--data.path", str(data), "--model.path", str(tiny), "--data.cache", str(folder / "cache")]


def launched(config, count, *arguments):
    """Run under ``accelerate launch`` with a shipped configuration."""
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(CONFIGS / f"{config}.yaml"),
        "--num_processes",
        str(count),
    ]
    command = [sys.executable, *launch, "-m", "visviva.pipelines.posttrain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def in_process(*arguments):
    """Run the same command line without starting a process; return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["posttrain", *map(str, arguments)])
        return main()


def final(output):
    return checkpoint.load(checkpoint.latest(Path(output) / "checkpoints"))


def assert_close(one, two, rtol=2e-4, atol=2e-6):
    for group in one.tensors:
        assert one.tensors[group].keys() == two.tensors[group].keys()
        for name, value in one.tensors[group].items():
            assert torch.allclose(value, two.tensors[group][name], rtol=rtol, atol=atol), (group, name)


@pytest.mark.slow
def test_batch_accumulation_and_processes_are_one_thing(common, tmp_path):
    """1 clip x 4 micro-steps = 4 clips x 1 = 2 processes (gloo) x 2, step by step, in loss, gradient, weights and averages.

    The fourth run is FSDP2 with adapters: 2 processes x 1 clip x 2 micro-steps.
    """
    runs = {
        "accumulated": lambda *a: posttrain(*a, "--batch-size", 1, "--gradient-accumulation", 4),
        "whole": lambda *a: posttrain(*a, "--batch-size", 4, "--gradient-accumulation", 1),
        "processes": lambda *a: launched("cpu-2", 2, *a, "--batch-size", 2, "--gradient-accumulation", 1),
        "sharded": lambda *a: launched("fsdp2", 2, *a, "--batch-size", 1, "--gradient-accumulation", 2),
    }
    for name, run in runs.items():
        done = run(*common, *DAMPED, "--max-steps", 3, "--output", tmp_path / name, "--reward.grad-steps", 2)
        assert done.returncode == 0, f"{name}: {done.stderr[-6000:]}"
        assert "= 4 clips per update; 3 updates = 12 clips = 2.00 epochs" in done.stdout + done.stderr
        processes = "2 process(es)" if name in ("processes", "sharded") else "1 process(es)"
        assert processes in done.stdout + done.stderr
    reference = lines(tmp_path / "accumulated")
    assert len(reference) == 3
    for name in ("whole", "processes", "sharded"):
        rows = lines(tmp_path / name)
        for row, other in zip(reference, rows, strict=True):
            for key in ("loss", "grad_norm", "law/mass_conservation", "law/constant_acceleration", "iou", "motion_energy"):
                assert row[key] == pytest.approx(other[key], rel=1e-4), (name, row["update"], key)
        drifts = [row["loss"] - other["loss"] for row, other in zip(reference, rows, strict=True)]
        assert max(map(abs, drifts)) < 1e-4 * reference[0]["loss"]
        assert_close(final(tmp_path / "accumulated"), final(tmp_path / name))
        one, two = (load_file(tmp_path / run / "lora" / "pytorch_lora_weights.safetensors") for run in ("accumulated", name))
        assert one.keys() == two.keys()
        assert all(torch.allclose(value, two[key], rtol=2e-4, atol=2e-6) for key, value in one.items())


@pytest.mark.slow
def test_fully_sharded_full_weights(common, tmp_path):
    """FSDP2 over all weights: as one process, one whole pipeline in diffusers format, a checkpoint one process can continue."""
    options = [*common, *DAMPED, "--weights", "full", "--reward.reference", "base", "--optimizer.lr", 1e-3]
    alone = ["--batch-size", 4, "--gradient-accumulation", 1]
    assert in_process(*options, "--max-steps", 3, "--output", tmp_path / "one", *alone, "--save-every", 2) == 0
    sharded = launched("fsdp2", 2, *options, "--max-steps", 2, "--output", tmp_path / "two", "--gradient-accumulation", 2)
    assert sharded.returncode == 0, sharded.stderr[-3000:]
    two = load_file(tmp_path / "two" / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    halfway = checkpoint.load(tmp_path / "one" / "checkpoints" / "step-00000002")
    assert_close(halfway, final(tmp_path / "two"), rtol=1e-3, atol=1e-5)
    trained = {name.removeprefix("transformer."): value for name, value in halfway.tensors["weights"].items()}
    assert trained.keys() == two.keys()
    assert all(torch.allclose(value, two[key], rtol=1e-3, atol=1e-5) for key, value in trained.items())
    assert in_process(*options, "--max-steps", 3, "--output", tmp_path / "two", *alone) == 0
    for row, other in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    assert_close(final(tmp_path / "one"), final(tmp_path / "two"), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_killed_runs_end_bit_identical(common, tmp_path):
    """SIGKILL at three kinds of moments, also in the middle of a save; the continued run ends with the same bits."""
    options = [*common, "--max-steps", 6, "--save-every", 1, "--batch-size", 2, "--gradient-accumulation", 1]
    options += ["--optimizer.lr", 1e-2, "--monitor.every", 2, "--keep", 2]
    assert posttrain(*options, "--output", tmp_path / "whole").returncode == 0

    def kill(moment):
        command = [
            sys.executable,
            "-m",
            "visviva.pipelines.posttrain",
            *map(str, options),
            "--output",
            str(tmp_path / "killed"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while not moment() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.0005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert process.returncode == -signal.SIGKILL

    folder = tmp_path / "killed" / "checkpoints"

    def saved(step):
        return (folder / f"step-{step:08d}").exists()

    kill(lambda: saved(1))  # between two saves
    kill(lambda: any(p.name.startswith(".writing") for p in _listing(folder)) and saved(2))  # within a save
    written = len((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines())
    kill(lambda: len((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()) > written)  # within an update
    done = posttrain(*options, "--output", tmp_path / "killed")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "continuing after update" in done.stderr + done.stdout
    whole, killed = final(tmp_path / "whole"), final(tmp_path / "killed")
    assert whole.step == killed.step == 6
    for group in ("weights", "optimizer", "ema"):
        assert all(torch.equal(value, killed.tensors[group][name]) for name, value in whole.tensors[group].items()), group
    assert {k: v for k, v in whole.state.items() if k != "identity"} == {
        k: v for k, v in killed.state.items() if k != "identity"
    }
    for name in ("lora", "lora-ema"):
        file = f"{name}/pytorch_lora_weights.safetensors"
        one, two = (load_file(tmp_path / run / file) for run in ("whole", "killed"))
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    rows = [[{**row, "seconds": 0} for row in lines(tmp_path / run)] for run in ("whole", "killed")]
    assert rows[0] == rows[1]
    assert not any(p.name.startswith(".") for p in _listing(folder))


def _listing(folder):
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


@pytest.mark.slow
def test_exit_status_and_one_sentence(common, tmp_path, capsys):
    """Bad input ends with status 2 and one sentence; a collapse with 3; a file system that refuses names the file."""
    bad = ["--output", tmp_path / "a", "--max-steps", 1, "--reward.mask-source", "none", "--reward.reference", "none"]
    assert in_process(*common, *bad) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("visviva: the law 'mass_conservation' compares with a paired clip, but reward.reference is 'none'")
    kinematic = tmp_path / "kinematic.yaml"
    kinematic.write_text(
        "verb: posttrain\nreward:\n  allow_trivial: true\n  mask_source: none\n  grad_steps: 2\n"
        "  laws: [{name: constant_acceleration}]\nweights: full\n"
        "monitor: {every: 1, motion: 0.5, patience: 2}\noptimizer: {lr: 2e-2}\ngradient_accumulation: 1\n"
    )
    arguments = ["--config", kinematic, *common, "--data.limit", 1, "--save-every", 1, "--max-steps", 60]
    assert in_process(*arguments, "--output", tmp_path / "b") == 3
    assert "the reward is won by doing nothing" in capsys.readouterr().err
    assert checkpoint.latest(tmp_path / "b" / "checkpoints") is not None
    script = f'ulimit -f 8; exec {sys.executable} -m visviva.pipelines.posttrain "$@"'  # no file above 8 KiB
    options = ["bash", "-c", script, "-", *map(str, common), "--output", str(tmp_path / "c"), "--max-steps", "1"]
    done = subprocess.run(options, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "cannot write" in done.stderr.strip().splitlines()[-1]
