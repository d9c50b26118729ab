"""Checkpoints and caches: complete or absent, exact, never stale."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.pipelines.posttrain import checkpoint
from visviva.pipelines.posttrain.cache import Cache, fingerprint, weights_hash


def tensors(seed=0, size=7):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weights": {"a": torch.randn(size, generator=generator), "b": torch.randn(2, 3, generator=generator).bfloat16()},
        "optimizer": {"a::step": torch.tensor(3.0), "a::exp_avg": torch.randn(size, generator=generator)},
    }


def test_round_trip_is_exact(tmp_path):
    wanted = tensors()
    path = checkpoint.save(tmp_path, 12, wanted, {"fingerprint": "x", "monitor": {"low": 2}})
    read = checkpoint.load(checkpoint.latest(tmp_path))
    assert (read.path, read.step, read.state["monitor"]) == (path, 12, {"low": 2})
    for group, content in wanted.items():
        assert read.tensors[group].keys() == content.keys()
        assert all(
            torch.equal(read.tensors[group][n], t) and read.tensors[group][n].dtype == t.dtype for n, t in content.items()
        )


def test_keeps_the_newest(tmp_path):
    for step in (1, 2, 10, 9):
        checkpoint.save(tmp_path, step, tensors(), {}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]
    assert checkpoint.latest(tmp_path).name == "step-00000010"
    assert checkpoint.latest(tmp_path / "absent") is None


def test_half_written_folders_are_not_checkpoints(tmp_path):
    checkpoint.save(tmp_path, 1, tensors(), {})
    (tmp_path / ".writing-00000002").mkdir()
    (tmp_path / ".writing-00000002" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000003").mkdir()  # no manifest
    assert checkpoint.latest(tmp_path).name == "step-00000001"
    assert checkpoint.save(tmp_path, 2, tensors(), {}).is_dir()


def test_damage_is_seen(tmp_path):
    path = checkpoint.save(tmp_path, 1, tensors(), {})
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: weights\.safetensors"):
        checkpoint.load(path)


def test_newer_version_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, tensors(), {})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match="newer version"):
        checkpoint.load(path)


@pytest.mark.parametrize("moment", ["weights", "replace"])
def test_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, moment):
    before = checkpoint.save(tmp_path, 1, tensors(0), {})

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((checkpoint, "save_file") if moment == "weights" else (os, "replace")), full)
    with pytest.raises(InputError, match=r"step-00000002.*No space left"):
        checkpoint.save(tmp_path, 2, tensors(1), {})
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path) == before
    assert torch.equal(checkpoint.load(before).tensors["weights"]["a"], tensors(0)["weights"]["a"])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_real_write_error_is_one_sentence(tmp_path):
    """The operating system refuses to write more than 64 KiB into one file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limit[1]))
    try:
        with pytest.raises(InputError, match="cannot write the checkpoint"):
            checkpoint.save(tmp_path, 1, tensors(size=100_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert checkpoint.latest(tmp_path) is None


WRITER = """
import sys, torch
from pathlib import Path
from visviva.pipelines.posttrain import checkpoint
for step in range(1, 10**6):
    content = torch.full((200_000,), float(step))
    checkpoint.save(Path(sys.argv[1]), step, {"weights": {"a": content}, "ema": {"a": -content}}, {"step_again": step}, keep=1)
"""


def test_killed_at_any_moment_leaves_a_complete_checkpoint(tmp_path):
    """Eight writers are killed at moments spread over a save; what is left is always whole and of one step."""
    delays = [0.002 * 1.7**i for i in range(8)]
    seen = 0
    for i, delay in enumerate(delays):
        folder = tmp_path / str(i)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
        try:
            deadline = time.monotonic() + 60
            while checkpoint.latest(folder) is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if i % 2:  # in the middle of a save
                while not list(folder.glob(".writing-*")) and time.monotonic() < deadline:
                    pass
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = checkpoint.latest(folder)
        if found is None:  # killed between renaming the old one away and the new one in: only possible with keep < 2
            continue
        read = checkpoint.load(found)
        assert read.step == read.state["step_again"] == read.tensors["weights"]["a"][0] == -read.tensors["ema"]["a"][-1]
        seen += 1
    assert seen == len(delays)


@pytest.mark.parametrize("make", [lambda p: torch.optim.AdamW(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_optimizer_continues_bit_for_bit(tmp_path, make):
    def step(model, optimizer, seed):
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    optimizer = make(model.parameters())
    for seed in range(3):
        step(model, optimizer, seed)
    named = dict(model.named_parameters())
    groups = {"weights": checkpoint.gathered(named), "optimizer": checkpoint.optimizer_tensors(optimizer, named)}
    saved = checkpoint.load(checkpoint.save(tmp_path, 3, groups, {}))
    other = nn.Linear(3, 2)
    fresh = make(other.parameters())
    checkpoint.restore(dict(other.named_parameters()), saved.tensors["weights"], "the checkpoint")
    checkpoint.restore_optimizer(fresh, dict(other.named_parameters()), saved.tensors["optimizer"])
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, fresh, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_weights_of_another_model_are_refused():
    named = dict(nn.Linear(3, 2).named_parameters())
    with pytest.raises(InputError, match="does not belong to this model: 1 of 2 names are missing"):
        checkpoint.restore(named, {"weight": torch.zeros(2, 3)}, "the checkpoint")
    with pytest.raises(InputError, match="has shape"):
        checkpoint.restore(named, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "the checkpoint")


def test_cache_makes_each_entry_once_and_reads_it_exactly(tmp_path):
    made = []

    def make(i):
        made.append(i)
        return {"prompt": torch.full((2, 3), float(i)), "first": torch.ones(1, dtype=torch.bfloat16)}

    cache = Cache(tmp_path, {"model": "m", "frames": 17})
    assert (cache.fill([0, 1], make), cache.fill([0, 1, 2], make)) == (2, 1)
    again = Cache(tmp_path, {"frames": 17, "model": "m"})
    assert again.fill(range(3), make) == 0
    assert made == [0, 1, 2]
    assert torch.equal(again[2]["prompt"], torch.full((2, 3), 2.0))
    assert again[0]["first"].dtype == torch.bfloat16


def test_a_stale_cache_is_never_read(tmp_path):
    Cache(tmp_path, {"model": "m", "frames": 17}).fill([0], lambda i: {"x": torch.zeros(1)})
    other = Cache(tmp_path, {"model": "m", "frames": 9})
    assert list(other.missing([0])) == [0]
    with pytest.raises(InputError, match="cannot read"):
        other[0]
    old = next(tmp_path.glob("*/00000000.safetensors"))
    os.replace(old, other.folder / old.name)  # moved by hand into the wrong cache
    with pytest.raises(InputError, match="belongs to other data"):
        other[0]


def test_hashes_follow_content():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    torch.manual_seed(0)
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    assert weights_hash([one]) != weights_hash([two])
    two.load_state_dict(one.state_dict())
    assert weights_hash([one, None]) == weights_hash([two, None]) != weights_hash([one])
    assert weights_hash([one.bfloat16()]) != weights_hash([two])
