"""What a user did that cannot be answered."""

from __future__ import annotations


class UserError(Exception):
    """Bad usage or bad input: one clear line. The command line prints it on stderr and exits with 2."""
