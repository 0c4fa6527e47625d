"""x86-64: IA-32e mode, with 64-bit mode and compatibility mode."""

from .machine import build
from .paged import build as _paged

MACHINES = {"x86-64": build}
VARIANTS = {"x86-64-paged": _paged}
