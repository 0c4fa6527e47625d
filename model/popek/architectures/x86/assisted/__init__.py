"""What the kinds of hardware assistance of x86 share: ownership, the hardware state, the machine, declarations."""
