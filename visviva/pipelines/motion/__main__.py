"""``python -m visviva.pipelines.motion``: the same as ``visviva motion``."""

import sys

from visviva.cli import main
from visviva.exit import leave

if __name__ == "__main__":
    leave(main(["motion", *sys.argv[1:]]))
