"""Zicsr: every access to a control and status register is a form of its own (unprivileged manual, "Zicsr")."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word

from ..counters import UNPRIVILEGED, user_csrs
from ..csrs import Csr
from ..hypervisor_csrs import guest_csrs, hypervisor_csrs
from ..machine_csrs import machine_csrs
from ..state import XLEN, Rv64
from ..supervisor_csrs import supervisor_csrs

SOURCE = f"{UNPRIVILEGED}, Zicsr"
IMMEDIATE = ("fcsr", "sstatus", "sie", "mstatus", "vsstatus", "hstatus")
"""The CSRs whose forms with a number in place of a register are declared: what they do is the same for all."""


def all_csrs() -> tuple[Csr, ...]:
    """Every CSR of the hart, by number."""
    found = (*user_csrs(), *supervisor_csrs(), *hypervisor_csrs(), *guest_csrs(), *machine_csrs())
    return tuple(sorted(found, key=lambda csr: csr.number))


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""
    for csr in all_csrs():
        for name in ("CSRRW", "CSRRS", "CSRRC"):
            declare = machine.instruction(
                f"{name} rd, {csr.name}, rs1",
                source=f"{SOURCE}; {csr.source}",
                mnemonic=f"{name} {csr.name}",
                csr=csr,
                operation=name,
                immediate=False,
            )
            declare(access)
            if csr.name in IMMEDIATE:
                machine.instruction(
                    f"{name}I rd, {csr.name}, uimm",
                    source=f"{SOURCE}; {csr.source}",
                    mnemonic=f"{name}I {csr.name}",
                    csr=csr,
                    operation=name,
                    immediate=True,
                )(access)


def access(cpu: Rv64, rd: Word, source: Word, csr: Csr, operation: str, immediate: bool) -> None:
    """rd := CSR; CSR := source, or its bits set or cleared as source says.

    CSRRS and CSRRC write unless their source is x0 or the number 0; a register that holds 0 still counts as a write.
    """
    writes = TRUE if operation == "CSRRW" else source != 0
    csr.check(cpu, writes)
    meant = csr.meant(cpu)
    value = source.zero_extend(XLEN) if immediate else cpu.read_x(source)
    old = meant.read(cpu)
    start = old if meant.modified is None else meant.modified(cpu)
    if writes:
        if operation == "CSRRS":
            value = start | value
        elif operation == "CSRRC":
            value = start & ~value
        meant.write(cpu, value)
    cpu.write_x(rd, old)
