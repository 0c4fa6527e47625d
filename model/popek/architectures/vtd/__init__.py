"""Intel VT-d: a PC's remapping unit between its devices and its storage."""

from .assignment import devices

DEVICES = {"x86": devices}
