"""What a user did that cannot be answered, and what a command exits with."""

from __future__ import annotations

from typing import Final

UNEXPECTED: Final = 1
BAD_INPUT: Final = 2
UNKNOWN: Final = 3
INTERRUPTED: Final = 130  # as a shell counts it: 128, and the number of the signal


class UserError(Exception):
    """Bad usage or bad input: one clear line. The command line prints it on stderr and exits with 2."""
