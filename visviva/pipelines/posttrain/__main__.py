"""``accelerate launch -m visviva.pipelines.posttrain --config RECIPE``: the same as ``visviva posttrain``.

Exit status: 0 done, 2 an input that cannot be used, 3 the clips collapsed.
"""

from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import parse
from visviva.exit import leave
from visviva.pipelines.posttrain import run
from visviva.pipelines.status import status


def main() -> int:
    """Run the command line and return its exit status."""
    return status(lambda: run(parse(PosttrainRecipe, prog="visviva posttrain")))


if __name__ == "__main__":
    leave(main())
