"""The instruction lists of the PDP-10 processors."""
