"""Which benchmarks there are, and how one is run by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

from visviva.errors import InputError, closest
from visviva.eval.benchmarks.inputs import Inputs
from visviva.eval.benchmarks.result import Missing, Result, skipped

BENCHMARKS = {
    "physics-iq": "physics_iq_clips",
    "pisa": "pisa",
    "newtonbench": "newtonbench",
    "morpheus": "morpheus",
    "vbench-motion": "vbench_motion",
    "frechet": "frechet",
    "fidelity": "fidelity",
    "force": "force_clips",
    "videophy2": "videophy2",
    "phygenbench": "phygenbench",
    "vbench2": "vbench2",
}
"""Name on the command line -> module of this package; each has ``run(inputs)``, ``VERSION``, ``STANDING`` and ``NEEDS``."""


def module(name: str) -> ModuleType:
    """Return the module that runs a benchmark."""
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}{closest(name, BENCHMARKS)}; there are {', '.join(BENCHMARKS)}")
    return importlib.import_module(f"visviva.eval.benchmarks.{BENCHMARKS[name]}")


def run(name: str, inputs: Inputs) -> Result:
    """Run a benchmark; one whose input is missing comes back skipped, with the reason.

    Example::

        result = run("physics-iq", Inputs(["generated/"], reference="physics-IQ-benchmark/"))
        result["score"].value
    """
    runner = module(name)
    try:
        return runner.run(inputs)
    except Missing as reason:
        return skipped(name, runner.VERSION, runner.STANDING, str(reason))


def run_all(names: Sequence[str], inputs: Inputs) -> list[Result]:
    """Run several benchmarks; one whose input cannot be used is skipped with the reason, unless none can be run.

    Raises:
        InputError: no benchmark could be run; the reason of the first.
    """
    for name in names:
        module(name)
    results, refused = [], []
    for name in names:
        try:
            results.append(run(name, inputs))
        except InputError as error:
            refused.append(error)
            runner = module(name)
            results.append(skipped(name, runner.VERSION, runner.STANDING, str(error)))
    if len(refused) == len(names) and refused:
        raise refused[0]
    return results
