"""The instruction list of the 68000 and the 68010."""
