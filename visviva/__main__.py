"""``python -m visviva`` is the ``visviva`` command."""

import sys

from visviva.cli import main

sys.exit(main())
