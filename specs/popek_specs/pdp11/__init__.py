"""The instruction list of the PDP-11/45."""
