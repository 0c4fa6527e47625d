"""IA-32 in 32-bit protected mode."""

from .machine import build

MACHINES = {"ia32": build}
