"""The machines: one package per architecture, each with `MACHINES`, a mapping from name to maker."""

USUAL = "ia32"
"""The machine of commands that are given none."""
