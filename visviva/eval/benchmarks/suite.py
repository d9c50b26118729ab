"""Prompt suites: local question files, the clips that belong to each prompt, and what a judge said about them.

No suite is shipped: their prompts belong to their authors. A clip belongs to a prompt by its file name (``PROMPT.mp4``,
``PROMPT-3.mp4``, or a name that the suite gives) or by its caption in the data set's rows.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visviva.data.files import read_text
from visviva.errors import InputError
from visviva.eval.benchmarks import judge as judges
from visviva.eval.benchmarks.inputs import Inputs
from visviva.eval.benchmarks.result import ClipRow
from visviva.eval.collection import Item

NEEDS = "a local file or folder with the suite's prompts; none is shipped"
JUDGE = "the folder of a vision-language model, or module:function, called with (frames, question)"


CUT = 150
"""File names of so many letters and digits may be prompts that a file system cut."""


class Clips:
    """The clips of an evaluation by prompt, each once.

    Names are compared by their letters and digits, of any script; those without any name nothing. A file name of `CUT` and
    more belongs to the prompt that it is the beginning of, if no name is the prompt's own.

    Example::

        Clips(inputs.items()).of("A ball falls.")
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.known: dict[str, list[Item]] = {}
        for item in items:
            stem = item.path.stem
            names = (stem, re.sub(r"-\d+$", "", stem), str(item.labels.get("caption", "")), item.key)
            for name in {_plain(n) for n in names} - {""}:
                self.known.setdefault(name, []).append(item)

    def of(self, *names: str) -> list[Item]:
        """Return the clips of the first of these names that has any."""
        wanted = [plain for name in names if (plain := _plain(name))]
        whole = next((self.known[name] for name in wanted if name in self.known), [])
        if whole:
            return whole
        beginnings = [known for name in wanted for known in self.known if len(known) >= CUT and name.startswith(known)]
        return self.known[max(beginnings, key=len)] if beginnings else []


def _plain(name: str) -> str:
    """Return a prompt as file names can spell it: letters (with their marks) and digits only, in lower case."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in letters).split())


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a suite's JSON file, a list of objects."""
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise InputError(f"no file {str(path)!r}; give {NEEDS}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not readable as JSON ({error.msg}); give the suite's own file") from error
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise InputError(f"{path}: expected a list of prompts; give the suite's own file")
    return content


def texts(row: Any, names: Sequence[str], where: str) -> list[str]:
    """Return fields of a prompt that must be texts.

    Raises:
        InputError: one is missing or something else.
    """
    wrong = [n for n in names if not isinstance(row, Mapping) or not isinstance(row.get(n), str) or not row[n].strip()]
    if wrong:
        raise InputError(f"{where}: needs the text{'s' * (len(wrong) > 1)} {', '.join(wrong)}; give the suite's own file")
    return [row[n] for n in names]


def absent(key: str, numbers: dict[str, float], **labels: Any) -> ClipRow:
    """Return the row of a prompt that has no clip: its penalties, and the reason."""
    return ClipRow(key, key, numbers, failure="no clip of this prompt", labels=labels)


def needed_judge(inputs: Inputs) -> Any:
    """Return the judge, or raise `visviva.eval.benchmarks.result.Missing`."""
    return inputs.needed("judge", JUDGE)


def judged_by(judge: Any, published: str) -> str:
    """Return the note that names the judge."""
    said = judges.name(judge)
    return f"judged by {said}; published numbers are {published}'s, so compare runs under one judge, not with the leaderboard"
