"""Spike, the reference simulator of RISC-V, in this process."""

DIFFTESTS = {
    "rv64": {"spike": "popek.emulators.spike.compare:difftest"},
    "rv64-paged": {"spike": "popek.emulators.spike.compare:difftest_paged"},
}
WITNESSES = {"rv64": "popek.emulators.spike.witness:HARNESS"}
