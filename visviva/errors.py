"""The errors a user can mend: one sentence naming the thing, its value, what is allowed and the remedy.

The command line prints an `InputError` as that sentence and exits with status 2; any other exception is a bug and keeps
its traceback.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class InputError(ValueError):
    """Something the user gave (a config field, a file, an argument) cannot be used; the message says what to do."""


def closest(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the allowed names nearest to ``name``, or an empty string.

    >>> closest("gravty", ["gravity", "mass"])
    "; did you mean 'gravity'?"
    """
    near = difflib.get_close_matches(name, list(allowed), n=3, cutoff=0.6)
    return "; did you mean " + " or ".join(repr(n) for n in near) + "?" if near else ""


def optional(module: str, extra: str) -> ModuleType:
    """Import an optional package, or raise an `InputError` that names the extra which installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"this needs the optional package {module!r}, which could not be imported ({error}); "
            f"install it with: pip install 'visviva[{extra}]'"
        ) from error
