"""The command line, ``visviva <verb>``: a typed recipe (``configs.<verb>``) handed to a pipeline (``pipelines.<verb>``).

Exit status: 0 done, 1 a check found something wrong (`visviva doctor`), 2 an input that cannot be used (one sentence on
stderr; an error may bring its own status), 130 interrupted. Any other exception is a bug and keeps its traceback. Nothing
heavy is imported before a verb runs.
"""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from visviva import __version__
from visviva.errors import InputError, closest

VERBS = {
    "demo": "generate, measure, post-train, generate and measure again with the shipped model: one report",
    "simulate": "make ground-truth clips of the five Newtonian motion primitives",
    "pretrain": "train the tiny embedded model from scratch",
    "posttrain": "teach a video model Newton's laws by reward backpropagation",
    "generate": "clips from prompts and first frames, in batches, resumable, physics guidance as an option",
    "export": "write trained adapters under the names that ComfyUI gives to the layers",
    "playground": "a page in the browser: draw arrows on a first frame, see the clip in which the forces act",
    "prefer": "pairs for preference tuning: true clips before generated ones, scored by laws",
    "evaluate": "measure clips, generated or real: metrics, gravity, residuals, a report",
    "motion": "measure motions of people (BVH, TRC, C3D, AMASS, HumanML3D): feet, smoothness, bones, flight, a report",
    "calibrate": "measure how well each law tells violations of mechanics from the truth",
    "optim": "list the optimizers, or time them on this machine against other implementations",
    "doctor": "say what works on this machine and how to mend what does not",
}
"""The verbs in the order of a user's day; a further pair ``configs/<verb>.py`` + ``pipelines/<verb>`` appears by itself."""

CONFIGS = "list the shipped recipes, copy one, check your own"
LAUNCHED = ("posttrain", "generate", "motion")
"""Verbs that run on several processes: ``--num-processes N`` or ``--accelerate-config FILE`` starts them with accelerate."""

EXAMPLES = """\
examples:
  visviva demo                                                     everything once, on the shipped model
  visviva generate prompts.jsonl --output out                      clips from your own prompts and first frames
  visviva posttrain --config MY_RECIPE.yaml --num-processes 4      also: accelerate launch -m visviva.pipelines.posttrain

'visviva VERB --help' lists every setting of a verb; 'visviva configs list' shows the recipes to start from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    >>> main(["--version"])
    visviva 0.1.0
    0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except InputError as error:
        return _complain(str(error), int(getattr(error, "exit_status", 2)))
    except BrokenPipeError:  # the reader of our output (head, less) has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sentence = _explain(error)
        if sentence is None:
            raise
        return _complain(sentence)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "visviva":
            raise
        return _complain(
            f"a package that 'visviva {argv[0]}' needs cannot be imported ({error}); install this one again with what it needs "
            "(pip install --upgrade visviva), and see 'visviva doctor'"
        )
    except KeyboardInterrupt:
        again = shlex.join(["visviva", *argv])
        print(f"visviva: interrupted; what is finished is kept. To continue: {again}", file=sys.stderr)  # noqa: T201
        return 130


def _dispatch(argv: list[str]) -> int:
    verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if verb in ("-h", "--help", "help"):
        return _say(usage())
    if verb == "--version":
        return _say(f"visviva {__version__}")
    if verb == "configs":
        from visviva.configs import shipped

        return _say(shipped.command(rest))
    if verb not in verbs():
        raise InputError(
            f"no verb {verb!r}{closest(verb, [*verbs(), 'configs'])}; the verbs are {', '.join([*verbs(), 'configs'])}"
        )
    return _run(verb, rest)


def _run(verb: str, argv: list[str]) -> int:
    from visviva.configs.schema import parse
    from visviva.configs.shipped import recipe_class

    launch = _take_launch(argv) if verb in LAUNCHED else []
    if verb in LAUNCHED and ("-h" in argv or "--help" in argv):
        _say(f"On several processes: visviva {verb} --num-processes N, or --accelerate-config FILE_OR_SHIPPED_NAME.\n")
    recipe = parse(recipe_class(verb), argv, prog=f"visviva {verb}")
    action = getattr(recipe, "action", "posttrain")
    if launch and action != "posttrain":
        raise InputError(f"several processes are for motion posttrain; visviva {verb} {action} runs in one")
    if launch:
        return subprocess.run([*launch, "-m", "visviva", verb, *argv], check=False).returncode
    run: Callable[[Any], Any] = importlib.import_module(f"visviva.pipelines.{verb}").run
    return int(getattr(run(recipe), "exit_status", 0))


def verbs() -> dict[str, str]:
    """Return every verb of this installation and its line of help, in the order of `VERBS`, further ones after them."""
    from visviva.configs import shipped

    there = shipped.verbs()
    return {verb: VERBS.get(verb) or shipped.headline(verb) for verb in sorted(there, key=[*VERBS, *there].index)}


def usage() -> str:
    """Return the text of ``visviva --help``."""
    lines = "\n".join(f"  {verb:<10} {line}" for verb, line in {**verbs(), "configs": CONFIGS}.items())
    return f"""\
visviva {__version__}: generated video and human motion that obey the laws of mechanics.

usage: visviva VERB [--config RECIPE] [--dotted.key VALUE ...]

{lines}

{EXAMPLES}"""


def _take_launch(argv: list[str]) -> list[str]:
    """Remove the launch options from ``argv``; return the command that starts the processes, or [] for this one alone."""
    count, config = _take(argv, "--num-processes"), _take(argv, "--accelerate-config")
    if count is not None and not (count.isdigit() and int(count) > 0):
        raise InputError(f"--num-processes {count!r} is not a positive whole number; give 1 or more")
    if config is None and count in (None, "1"):
        return []
    if "WORLD_SIZE" in os.environ:
        raise InputError("--num-processes inside accelerate launch or torchrun would nest two launches; give it to one of them")
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if config is not None:
        from visviva.configs.shipped import accelerate_config

        return [*command, "--config_file", str(accelerate_config(config)), *(["--num_processes", count] if count else [])]
    quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*command, "--multi_gpu", "--num_processes", str(count), *quiet]  # on a CPU the pipelines join these over gloo


def _take(argv: list[str], option: str) -> str | None:
    for i, word in enumerate(argv):
        if word == option:
            if i + 1 == len(argv):
                raise InputError(f"{option} needs a value")
            value = argv[i + 1]
            del argv[i : i + 2]
            return value
        if word.startswith(f"{option}="):
            del argv[i]
            return word.removeprefix(f"{option}=")
    return None


def _explain(error: OSError) -> str | None:
    """Return the sentence for a file-system error that the user can mend, or None if it is not one of those."""
    where = repr(str(error.filename2 or error.filename)) if error.filename or error.filename2 else "the output"
    remedies = {
        errno.ENOSPC: f"no space left on the disk while writing {where}; free some and run again, finished work is kept",
        errno.EDQUOT: f"the disk quota is used up while writing {where}; free some and run again, finished work is kept",
        errno.EFBIG: f"the file size limit of this shell was reached while writing {where}; raise it (ulimit -f) and run again",
        errno.ENOTDIR: f"{where} lies under a file, not under a folder; choose another output path",
        errno.EEXIST: f"{where} is already there as a file where a folder is needed; choose another output path",
        errno.EISDIR: f"{where} is a folder where a file is needed; give the path of a file",
        errno.EACCES: f"no permission for {where}; choose another path or change its permissions",
        errno.EROFS: f"{where} lies on a read-only disk; choose another path",
    }
    return remedies.get(error.errno or 0)


def _complain(sentence: str, status: int = 2) -> int:
    rank = int(os.environ.get("RANK", "0"))
    print(f"visviva: {f'process {rank}: ' if rank else ''}{sentence}", file=sys.stderr)  # noqa: T201
    return status


def _say(text: str) -> int:
    print(text, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
