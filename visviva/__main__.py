"""``python -m visviva`` is the ``visviva`` command."""

from visviva.cli import main
from visviva.exit import leave

leave(main())
