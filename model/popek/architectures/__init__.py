"""The machines: one package per architecture, each with `MACHINES`, a mapping from name to maker."""
