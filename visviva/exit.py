"""How a process of the command line ends."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

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


def leave(status: int) -> NoReturn:
    """End the process with this exit status.

    One of several processes ends without shutting the interpreter down: threads of gloo may still hold tensors, and freeing
    those during the shutdown aborts the process now and then, after all its work was done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
