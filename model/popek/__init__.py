"""popek derives whether a machine can host a virtual machine monitor, with a solver and a witness."""

__version__ = "0.1.0"
