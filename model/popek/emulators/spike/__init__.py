"""Spike, the reference simulator of RISC-V, in this process."""
