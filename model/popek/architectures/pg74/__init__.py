"""The third generation machine of Popek and Goldberg (1974)."""

from .channel import devices
from .machine import build

MACHINES = {"pg74": build}
DEVICES = {"pg74": devices}
