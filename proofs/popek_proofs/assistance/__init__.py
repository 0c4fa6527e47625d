"""Hardware assistance: the comparison of its kinds, and interrupts."""
