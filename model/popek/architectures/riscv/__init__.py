"""RISC-V: an RV64 hart with machine, supervisor and user mode and the hypervisor extension."""

from .machine import build

MACHINES = {"rv64": build}
