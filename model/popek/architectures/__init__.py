"""The machines: one package per architecture, each with `MACHINES`, a mapping from name to maker."""

USUAL = "ia32"
"""The machine of commands that are given none."""
TO_BEGIN_WITH = "pg74"
"""The machine that is small enough to be looked at whole."""
