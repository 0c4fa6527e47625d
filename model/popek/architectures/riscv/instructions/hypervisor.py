"""HLV, HLVX, HSV and the hypervisor's fences (privileged manual, "H" Extension, "Hypervisor Instructions")."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..access import GUEST_EXECUTABLE, GUEST_LOAD, GUEST_STORE, load, store, the_guest
from ..csrs import in_hs
from ..exceptions import ILLEGAL, VIRTUAL
from ..references import ReferenceKind
from ..state import MANUAL, USER, XLEN, Rv64
from .integer import needs_64
from .privileged import SVINVAL, needs_svinval

SOURCE = f"{MANUAL}, Hypervisor Virtual-Machine Load and Store Instructions"
FENCES = f"{MANUAL}, Hypervisor Memory-Management Fence Instructions"
LOADS = {"B": (1, True), "BU": (1, False), "H": (2, True), "HU": (2, False), "W": (4, True), "WU": (4, False),
         "D": (8, True)}  # fmt: skip
EXECUTABLE = {"HU": 2, "WU": 4}
STORES = {"B": 1, "H": 2, "W": 4, "D": 8}


def _for_the_hypervisor(cpu: Rv64, *, hu: Word) -> None:
    """For M and HS, and with `hu` for U; a guest, whatever HU, gets a virtual-instruction exception."""
    if ~cpu.misa.h | (~cpu.v & (cpu.prv == USER) & ~hu):
        raise Fault(ILLEGAL)
    if cpu.v:
        raise Fault(VIRTUAL)


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""

    def hlv(cpu: Rv64, rd: Word, rs1: Word, size: int, signed: bool, kind: ReferenceKind) -> None:
        """rd := storage as the guest sees it, in the mode of hstatus.SPVP."""
        if size == 8 or (size == 4 and not signed and kind is GUEST_LOAD):  # HLV.D and HLV.WU
            needs_64(cpu)
        _for_the_hypervisor(cpu, hu=cpu.hstatus.hu)
        value = load(cpu, cpu.effective(cpu.read_x(rs1)), size, the_guest(cpu), kind)
        cpu.write_x(rd, value.sign_extend(XLEN) if signed else value.zero_extend(XLEN))

    def hsv(cpu: Rv64, rs2: Word, rs1: Word, size: int) -> None:
        """Storage as the guest sees it := rs2."""
        if size == 8:
            needs_64(cpu)
        _for_the_hypervisor(cpu, hu=cpu.hstatus.hu)
        store(
            cpu,
            cpu.effective(cpu.read_x(rs1)),
            cpu.read_x(rs2).truncate(8 * size),
            the_guest(cpu),
            GUEST_STORE,
        )

    for name, (size, signed) in LOADS.items():
        machine.instruction(
            f"HLV.{name} rd, (rs1)", source=SOURCE, size=size, signed=signed, kind=GUEST_LOAD
        )(hlv)
    for name, size in EXECUTABLE.items():
        machine.instruction(
            f"HLVX.{name} rd, (rs1)", source=SOURCE, size=size, signed=False, kind=GUEST_EXECUTABLE
        )(hlv)
    for name, size in STORES.items():
        machine.instruction(f"HSV.{name} rs2, (rs1)", source=SOURCE, size=size)(hsv)

    def first_stage(cpu: Rv64, rs1: Word, rs2: Word, svinval: bool) -> None:
        """Order updates of the guest's page tables; TVM has no say."""
        if svinval:
            needs_svinval(cpu)
        _for_the_hypervisor(cpu, hu=Word(1, 0))

    def second_stage(cpu: Rv64, rs1: Word, rs2: Word, svinval: bool) -> None:
        """Order updates of the second stage; TVM traps it in HS."""
        if svinval:
            needs_svinval(cpu)
        _for_the_hypervisor(cpu, hu=Word(1, 0))
        if in_hs(cpu) & cpu.mstatus.tvm:
            raise Fault(ILLEGAL)

    machine.instruction("HFENCE.VVMA rs1, rs2", source=FENCES, svinval=False)(first_stage)
    machine.instruction("HINVAL.VVMA rs1, rs2", source=SVINVAL, svinval=True)(first_stage)
    machine.instruction("HFENCE.GVMA rs1, rs2", source=FENCES, svinval=False)(second_stage)
    machine.instruction("HINVAL.GVMA rs1, rs2", source=SVINVAL, svinval=True)(second_stage)
