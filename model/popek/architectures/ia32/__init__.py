"""IA-32: real-address, virtual-8086 and 32-bit protected mode."""

from .machine import build
from .paged import build as _paged

MACHINES = {"ia32": build}
VARIANTS = {"ia32-paged": _paged}
