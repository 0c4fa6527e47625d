"""The SIMH simulators: one instruction from a given state."""
