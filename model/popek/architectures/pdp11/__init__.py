"""The DEC PDP-11/45 with its KT11-C memory management unit."""

from .machine import build
from .unibus import devices

MACHINES = {"pdp11-45": build}
DEVICES = {"pdp11-45": devices}
