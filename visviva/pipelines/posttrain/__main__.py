"""``accelerate launch -m visviva.pipelines.posttrain --config RECIPE``: the same as ``visviva posttrain``.

Exit status: 0 done, 2 an input that cannot be used, 3 the clips collapsed.
"""

import os
import sys

from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import parse
from visviva.errors import InputError
from visviva.exit import leave
from visviva.pipelines.posttrain import run


def main() -> int:
    """Run the command line and return its exit status."""
    try:
        run(parse(PosttrainRecipe, prog="visviva posttrain"))
    except InputError as error:
        rank = int(os.environ.get("RANK", "0"))
        print(f"visviva: {f'process {rank}: ' if rank else ''}{error}", file=sys.stderr)  # noqa: T201
        return int(getattr(error, "exit_status", 2))
    return 0


if __name__ == "__main__":
    leave(main())
