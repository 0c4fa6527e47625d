"""The third generation machine of Popek and Goldberg (1974)."""

from .machine import build

MACHINES = {"pg74": build}
