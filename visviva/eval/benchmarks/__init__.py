"""Public benchmarks: each in its own file, exact where code is published, labelled a reconstruction or uncalibrated where not.

``run(name, inputs)`` runs one; docs/benchmarks.md says what each needs and shows it in five lines.
"""

from visviva.eval.benchmarks import judge, page
from visviva.eval.benchmarks.inputs import Inputs
from visviva.eval.benchmarks.result import ClipRow, Missing, Result
from visviva.eval.benchmarks.run import BENCHMARKS, run, run_all

__all__ = ["BENCHMARKS", "ClipRow", "Inputs", "Missing", "Result", "judge", "page", "run", "run_all"]
