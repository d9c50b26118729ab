"""How a process of the command line ends."""

import os
import sys
from typing import NoReturn


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
