"""RISC-V: an RV64 hart with machine, supervisor and user mode and the hypervisor extension."""

from .machine import build
from .paged import build as build_paged

MACHINES = {"rv64": build}
VARIANTS = {"rv64-paged": build_paged}
