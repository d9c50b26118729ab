"""visviva: generated video and human motion that obey the laws of mechanics.

The rooms, ground first: ``optim`` and ``physics`` know nothing of the others; ``models`` and ``data`` stand on them;
``eval`` measures; ``pipelines`` run; ``configs`` hold the recipes; ``cli`` is the roof. Import what you need::

    from visviva.physics import Verifier
    from visviva.data import Clip

Importing this package imports nothing heavy (no torch, no diffusers).
"""

__version__ = "0.1.0"
