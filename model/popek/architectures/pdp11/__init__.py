"""The DEC PDP-11/45 with its KT11-C memory management unit."""

from .machine import build

MACHINES = {"pdp11-45": build}
