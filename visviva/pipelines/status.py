"""The exit status of a pipeline that is run as a module."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from visviva.errors import InputError


def status(run: Callable[[], object]) -> int:
    """Run and return the exit status: 0 done, 2 (or the error's own) an input that cannot be used, which is then said."""
    try:
        run()
    except InputError as error:
        rank = int(os.environ.get("RANK", "0"))
        print(f"visviva: {f'process {rank}: ' if rank else ''}{error}", file=sys.stderr)  # noqa: T201
        return int(getattr(error, "exit_status", 2))
    return 0
