"""What the classes and promises say, in words: one line each, for pages."""

from __future__ import annotations

from typing import Final

DEFINITIONS: Final = {
    "privileged": "always traps in user mode, and can complete in a state that differs only in mode",
    "control_sensitive": "some run completes and changes a mode or resource component",
    "location_sensitive": "some run does not commute with moving the program in storage",
    "mode_sensitive": "two states differ only in mode, neither run traps, and the results differ",
    "resource_sensitive": "two states differ only in what the technique replaces, neither run traps, and the "
    "results differ",
    "user_sensitive": "sensitive with every run in user mode (Theorem 3)",
    "sensitive": "control, location, mode or resource sensitive",
    "innocuous": "not sensitive",
    "critical": "sensitive and not privileged: refutes the premise of Theorem 1",
    "user_critical": "user-sensitive and not privileged: refutes the premise of Theorem 3",
    "needless_trap": "innocuous, completes natively, and can trap on the hardware",
    "faithful": "where it does not trap, it does on the hardware what it does on the guest's own machine",
    "safe": "where it does not trap, it changes nothing of the VMM's and shows nothing of it",
}

COLUMNS: Final = (
    ("privileged", "priv."),
    ("control_sensitive", "control"),
    ("location_sensitive", "location"),
    ("mode_sensitive", "mode"),
    ("resource_sensitive", "resource"),
    ("user_sensitive", "user"),
    ("critical", "critical"),
)
"""The columns of a table of classes, each with a short title."""

__all__ = ["COLUMNS", "DEFINITIONS"]
