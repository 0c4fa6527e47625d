"""The Motorola 68000 and 68010."""

from .machine import build

MACHINES = {"m68k": build}
