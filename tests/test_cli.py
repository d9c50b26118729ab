"""The command line: what it prints, what it returns, and that a user's mistake is one sentence."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from visviva import __version__, cli
from visviva.configs.generate import GenerateRecipe
from visviva.errors import InputError


def run(argv, capsys):
    status = cli.main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def pipeline(monkeypatch, behaviour):
    """Put a stand-in under the verb generate; cli must find it by name."""
    monkeypatch.setitem(sys.modules, "visviva.pipelines.generate", SimpleNamespace(run=behaviour))


def test_help_teaches_every_verb(capsys):
    status, out, _ = run(["--help"], capsys)
    assert status == 0
    for verb in [*cli.verbs(), "configs"]:
        assert f"  {verb} " in out
    assert sum(line.startswith("  visviva ") for line in out.splitlines()) == 3  # examples
    assert out == run([], capsys)[1]


def test_help_describes_every_verb_by_what_it_does(capsys):
    lines = run(["--help"], capsys)[1].splitlines()
    told = {line.split()[0]: line for line in lines if line.startswith("  ") and line.split()[0] in cli.verbs()}
    assert told["calibrate"].endswith("measure how well each law tells violations of mechanics from the truth")
    assert not [line for line in told.values() if "The settings of" in line or "``" in line]


def test_the_verbs_of_the_day_are_all_there():
    assert set(cli.VERBS) <= set(cli.verbs())


@pytest.mark.parametrize("verb", sorted(cli.verbs()))
def test_help_of_a_verb_names_its_settings(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code in (0, None)
    assert f"usage: visviva {verb}" in out
    assert "--config" in out


def test_version_and_module_call(capsys):
    assert run(["--version"], capsys)[1].strip() == f"visviva {__version__}"
    done = subprocess.run([sys.executable, "-m", "visviva", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"visviva {__version__}"


def test_an_unknown_verb_gets_the_closest_name(capsys):
    status, _, err = run(["generat"], capsys)
    assert status == 2
    assert "no verb 'generat'; did you mean 'generate'" in err
    assert len(err.strip().splitlines()) == 1


def test_the_recipe_reaches_the_pipeline(monkeypatch, capsys):
    seen = []
    pipeline(monkeypatch, seen.append)
    assert run(["generate", "a.jsonl", "--seed", "3", "--guidance.scale", "0.5"], capsys)[0] == 0
    assert isinstance(seen[0], GenerateRecipe)
    assert (seen[0].prompts, seen[0].seed, seen[0].guidance.scale) == ("a.jsonl", 3, 0.5)


def test_a_users_mistake_is_one_sentence_and_status_2(monkeypatch, capsys):
    error = InputError("clip.mp4: no frames; give another file")

    def wrong(recipe):
        raise error

    pipeline(monkeypatch, wrong)
    status, out, err = run(["generate", "x"], capsys)
    assert (status, out, err) == (2, "", "visviva: clip.mp4: no frames; give another file\n")
    error.exit_status = 3
    assert run(["generate", "x"], capsys)[0] == 3


def test_an_unknown_key_in_a_recipe_names_the_closest(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("verb: generate\nsampler: {stepz: 4}\n")
    status, _, err = run(["generate", "x", "--config", str(recipe)], capsys)
    assert status == 2
    assert "unknown key 'sampler.stepz'; did you mean 'steps'" in err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def bug(recipe):
        raise ZeroDivisionError("bug")

    pipeline(monkeypatch, bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["generate", "x"])


def test_interrupted_says_how_to_continue(monkeypatch, capsys):
    def interrupted(recipe):
        raise KeyboardInterrupt

    pipeline(monkeypatch, interrupted)
    status, _, err = run(["generate", "my prompts.jsonl", "--seed", "1"], capsys)
    assert status == 130
    assert "visviva generate 'my prompts.jsonl' --seed 1" in err


def test_the_exit_status_of_a_result_is_the_commands(monkeypatch, capsys):
    pipeline(monkeypatch, lambda recipe: SimpleNamespace(exit_status=1))
    assert run(["generate", "x"], capsys)[0] == 1


def raise_os(code):
    def behaviour(recipe):
        raise OSError(code, os.strerror(code), "out/clips/a.mp4")

    return behaviour


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left on the disk while writing 'out/clips/a.mp4'"),
        (errno.ENOTDIR, "lies under a file"),
        (errno.EACCES, "no permission for 'out/clips/a.mp4'"),
        (errno.EROFS, "read-only disk"),
    ],
)
def test_a_file_system_that_refuses_is_one_sentence(monkeypatch, capsys, code, words):
    pipeline(monkeypatch, raise_os(code))
    status, _, err = run(["generate", "x"], capsys)
    assert status == 2
    assert words in err


@pytest.mark.parametrize("writer", ["metrics", "report", "manifest", "calibration", "log"])
def test_a_full_disk_names_the_file_that_is_written(writer, monkeypatch, tmp_path):
    from visviva.data.manifest import Manifest
    from visviva.eval import calibrate
    from visviva.eval.page import Page
    from visviva.eval.run import write_json
    from visviva.pipelines.posttrain.log import Log

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system names no file

    path = tmp_path / f"{writer}.json"
    log, manifest = Log(path, 0), Manifest(tmp_path / "folder", {})
    monkeypatch.setattr("pathlib.Path.write_text", full)
    monkeypatch.setattr("pathlib.Path.open", full)
    monkeypatch.setattr("os.fsync", full)
    write = {
        "metrics": lambda: write_json(path, {"a": 1}),
        "report": lambda: Page("a", "b").write(path),
        "manifest": lambda: manifest.add({"id": "a"}),
        "calibration": lambda: calibrate.write({"a": 1}, path),
        "log": lambda: log.write(1, "train", {"loss": 1.0}),
    }[writer]
    with pytest.raises(InputError, match=r"(manifest-00000|metrics|report|calibration|log)\.json.*No space left on device"):
        write()
    assert [p.name for p in tmp_path.iterdir()] in (["folder"], ["folder", path.name], [path.name, "folder"])


def test_a_missing_package_is_one_sentence_and_a_missing_name_of_ours_a_bug(monkeypatch, capsys):
    def behaviour(recipe):
        raise ModuleNotFoundError("No module named 'newton'", name=recipe.output)

    pipeline(monkeypatch, behaviour)
    status, _, err = run(["generate", "x", "--output", "newton.solvers"], capsys)
    assert status == 2
    assert "'visviva generate' needs cannot be imported (No module named 'newton'); install" in err
    with pytest.raises(ModuleNotFoundError):
        cli.main(["generate", "x", "--output", "visviva.pipelines.nothing"])


def test_other_errors_of_the_system_are_bugs(monkeypatch):
    pipeline(monkeypatch, raise_os(errno.EBADF))
    with pytest.raises(OSError, match="Bad file"):
        cli.main(["generate", "x"])


def test_an_output_path_under_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a ball falls"}\n')
    status, _, err = run(["generate", str(prompts), "--output", str(tmp_path / "file" / "out")], capsys)
    assert status == 2
    assert "cannot be made (Not a directory); choose another one" in err
    assert len(err.strip().splitlines()) == 1


def test_several_processes_are_started_by_accelerate(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(cli.subprocess, "run", lambda command, check: started.append(command) or SimpleNamespace(returncode=7))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert run(["generate", "p.jsonl", "--num-processes", "2", "--seed", "5"], capsys)[0] == 7
    command = started[0]
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--num_processes") + 1] == "2"
    assert command[-6:] == ["-m", "visviva", "generate", "p.jsonl", "--seed", "5"]


def test_a_wrong_setting_is_found_before_processes_start(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli.subprocess, "run", lambda *a, **k: pytest.fail("started"))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("verb: generate\nsteps: 4\n")
    assert run(["generate", "--num-processes", "2", "--config", str(recipe)], capsys)[0] == 2
    assert run(["generate", "--num-processes", "two"], capsys)[0] == 2
    assert run(["generate", "--num-processes"], capsys)[0] == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "nest" in run(["generate", "--num-processes", "2"], capsys)[2]


def test_a_reader_that_has_gone_is_no_error():
    command = f"{sys.executable} -m visviva --help | head -n 1; echo status ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "status 0" in done.stdout


class TestDoctor:
    def test_reports_every_check_as_json(self, capsys):
        status, out, _ = run(["doctor", "--json"], capsys)
        report = json.loads(out)
        states = {f["name"]: f["state"] for f in report["findings"]}
        assert {"python", "torch", "bfloat16", "video", "simulation", "disk", "weights"} <= set(states)
        assert states["video"] == "ok"
        assert status == int("broken" in states.values()) == int(not report["ready"])
        assert all(f["remedy"] for f in report["findings"] if f["state"] != "ok")

    def test_a_full_disk_breaks_it_and_says_what_to_do(self, capsys):
        status, out, _ = run(["doctor", "--disk-gib", "1e9"], capsys)
        assert status == 1
        line = next(line for line in out.splitlines() if line.startswith("BROKEN   disk"))
        assert "-> free" in line
        assert "not ready: " in out

    def test_altered_weights_are_seen(self, tmp_path, monkeypatch):
        import hashlib

        from visviva.pipelines import doctor

        folder = tmp_path / "tiny"
        folder.mkdir()
        (folder / "a.safetensors").write_bytes(b"weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        (folder / "SHA256SUMS").write_text(f"{digest}  a.safetensors\n")
        monkeypatch.setattr(doctor, "WEIGHTS", tmp_path)
        assert doctor._weights().state == "ok"
        (folder / "a.safetensors").write_bytes(b"other")
        assert doctor._weights().state == "broken"

    def test_a_check_that_crashes_is_a_finding(self):
        from visviva.pipelines import doctor

        def crash():
            raise RuntimeError("driver\nmissing")

        finding = doctor._guarded("simulation", crash)
        assert (finding.state, finding.seen) == ("broken", "RuntimeError: driver")
