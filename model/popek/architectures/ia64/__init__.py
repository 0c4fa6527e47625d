"""Itanium (IA-64) and VT-i."""

from .machine import build

MACHINES = {"ia64": build}
