"""VMRUN of the host, and #VMEXIT: what they switch, and what they leave (APM vol. 2, 15.5 and 15.6).

VMRUN loads the state-save area and remembers the host's part of the same; #VMEXIT writes the area and gives the host
its part back.  What neither touches is the guest's when the host goes on: the general registers but rAX and rSP, FS,
GS, TR and LDTR with their hidden parts, the SYSENTER registers (which VMLOAD and VMSAVE move), DR0 to DR3, XCR0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelledError
from popek.kernel.words import TRUE, Word, all_of, concat

from ...ia32.state import invariant
from ..checks import CHECKS, NotGiven, VmcbView
from ..vmcb import FIELDS, SvmProcessor
from .settings import PLACES, bits
from .state import EXIT_INFORMATION, SvmIa32

_GPR_FIELDS: Final = {"eax": "RAX", "esp": "RSP"}
_REGISTERS: Final = {
    **_GPR_FIELDS,
    "eip": "RIP",
    "eflags": "RFLAGS",
    "cr0": "CR0",
    "cr2": "CR2",
    "cr3": "CR3",
    "cr4": "CR4",
    "dr6": "DR6",
    "dr7": "DR7",
    "gdtr.base": "GDTR_BASE",
    "gdtr.limit": "GDTR_LIMIT",
    "idtr.base": "IDTR_BASE",
    "idtr.limit": "IDTR_LIMIT",
}
_SEGMENTS: Final = ("es", "cs", "ss", "ds")

SWITCHED: Final = (
    *_REGISTERS,
    *(f"{name}.{part}" for name in _SEGMENTS for part in ("selector", "base", "limit", "rights")),
)
"""The slots that VMRUN loads and #VMEXIT saves; EFER is the other thing."""

RETURNED: Final = tuple(name for name in SWITCHED if name not in ("cr2", "dr6", "dr7"))
"""Those of them that #VMEXIT gives back to the host; DR7 it disables, and CR2 and DR6 stay the guest's."""

_INTERCEPTS, _MAPS = tuple(PLACES), {"iopm": "IOPM_BASE", "msrpm": "MSRPM_BASE"}
_EXITS: Final = dict(
    zip(EXIT_INFORMATION, ("EXITCODE", "EXITINFO1", "EXITINFO2", "EXITINTINFO", "NEXT_RIP"), strict=True)
)
PDPTES: Final = "SVM-CR-15"
"""The check of the PDPTEs, which the model's guests do not have."""
INVALID: Final = (1 << 64) - 1
PROCESSOR: Final = SvmProcessor(maxphyaddr=40, flush_by_asid=True, long_mode=False, cet=False, sev=False)
"""What VMRUN's checks ask of it."""


class _Vmcb(Mapping[str, Word]):
    """The fields of a VMCB in physical memory, 64 bits each; read when they are asked for."""

    def __init__(self, memory: Memory, address: Word) -> None:
        self._memory, self._address = memory, address

    def __getitem__(self, name: str) -> Word:
        field = FIELDS[name]
        place = self._address + field.offset
        return self._memory.load_little_endian(place, field.width // 8).zero_extend(64)

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)


def valid(vmcb: Mapping[str, Any]) -> Word:
    """Whether VMRUN takes a VMCB: every check that a violation of fails on all processors (width 1)."""
    view = VmcbView(vmcb, PROCESSOR)
    conditions = []
    for check in CHECKS.values():
        if check.certainty != "must" or check.id == PDPTES:
            continue
        try:
            gates = [_condition(gate(view)) for gate in check.gates]
            holds = _condition(check.holds(view)) if all(gate.value != 0 for gate in gates) else TRUE
        except NotGiven:
            continue
        for gate in gates:
            holds = holds | ~gate
        conditions.append(holds)
    return all_of(conditions)


def _condition(answer: Any) -> Word:
    return answer if isinstance(answer, Word) else TRUE if answer else ~TRUE


def run_guest(cpu: SvmIa32, address: Word) -> None:
    """VMRUN in the host: the guest of the VMCB at `address` runs, or EXITCODE says that it is none.

    Raises:
        NotModelledError: an event is injected, or a virtual interrupt is pending; the guest is in a state that no
            instruction leads to, such as paged real mode.
    """
    vmcb = _Vmcb(cpu.host_memory, address)
    if not valid(vmcb):
        code = Word(64, INVALID)
        place = address + FIELDS["EXITCODE"].offset
        cpu.host_memory = cpu.host_memory.store_little_endian(place, code)
        cpu.gif = Word(1, 0)
        return
    if vmcb["EVENTINJ"][31] | vmcb["VINTR_CONTROL"][8]:
        raise NotModelledError("events that VMRUN delivers")
    for name, field in _REGISTERS.items():
        cpu[name] = vmcb[field].truncate(cpu[name].width)
    for name in _SEGMENTS:
        upper = name.upper()
        cpu[f"{name}.selector"] = vmcb[f"{upper}_SELECTOR"][15:0]
        cpu[f"{name}.base"] = vmcb[f"{upper}_BASE"][31:0]
        cpu[f"{name}.limit"] = vmcb[f"{upper}_LIMIT"][31:0]
        cpu[f"{name}.rights"] = unpacked(vmcb[f"{upper}_ATTRIBUTES"][15:0])
    cpu.ss.rights.dpl = vmcb["CPL"][1:0]
    cpu.msr = cpu.msr.store(Word(32, IA32_EFER), vmcb["EFER"])
    for name in _INTERCEPTS:
        field, low = PLACES[name]
        cpu[name] = vmcb[field][low + cpu[name].width - 1 : low]
    for control, (field, bit) in bits().items():
        if control.startswith("enables."):
            cpu[control] = vmcb[field][bit]
    cpu.tsc_offset = vmcb["TSC_OFFSET"]
    for name, field in _MAPS.items():
        base, memory = vmcb[field][31:0] & 0xFFFFF000, cpu.host_memory
        cpu._memories[name] = _map(memory, base, cpu.memories()[name].address_width)
    cpu.guest_mode, cpu.gif = Word(1, 1), Word(1, 1)
    if not invariant(cpu):
        raise NotModelledError("a guest in a state that no instruction leads to")


def _map(memory: Memory, base: Word, width: int) -> Memory:
    """The permissions map at `base`, a bit per cell."""

    def cell(place: Word) -> Word:
        byte = memory.load(base + place[width - 1 : 3].zero_extend(32))
        return (byte >> concat(Word(5, 0), place[2:0]))[0]

    return Memory(width, 1, cell)


def leave_guest(exited: SvmIa32, host: SvmIa32, address: Word) -> SvmIa32:
    """The host after a #VMEXIT.

    Args:
        exited: the state of the exit's trap.
        host: the state in which the host executed VMRUN, with EIP behind it.
        address: of the VMCB.
    """
    after = exited.copy()
    memory = exited.host_memory

    def save(field: str, value: Word) -> None:
        nonlocal memory
        known = FIELDS[field]
        memory = memory.store_little_endian(
            address + known.offset, value.zero_extend(64).truncate(known.width)
        )

    for name, field in _REGISTERS.items():
        save(field, exited[name])
    for name in _SEGMENTS:
        upper = name.upper()
        save(f"{upper}_SELECTOR", exited[f"{name}.selector"])
        save(f"{upper}_BASE", exited[f"{name}.base"])
        save(f"{upper}_LIMIT", exited[f"{name}.limit"])
        save(f"{upper}_ATTRIBUTES", packed(exited[f"{name}.rights"]))
    save("CPL", exited.cpl)
    save("EFER", exited.msr.load(Word(32, IA32_EFER)))
    save("INTERRUPT_SHADOW", (exited.shadow.value != 0).zero_extend(32))
    for name, field in _EXITS.items():
        save(field, exited[name])
    after.host_memory = memory
    for name in RETURNED:
        after[name] = host[name]
    after.msr = after.msr.store(Word(32, IA32_EFER), host.msr.load(Word(32, IA32_EFER)))
    after.dr7 = Word(32, 0x400)
    after.shadow = Word(2, 0)
    after.guest_mode, after.gif = Word(1, 0), Word(1, 0)
    return after


def packed(rights: Word) -> Word:
    """The 12 attribute bits of a VMCB (16 bits) of access rights; what is unusable is not present."""
    present = rights[7] & ~rights[16]
    return concat(Word(4, 0), rights[15:12], present, rights[6:0])


def unpacked(attributes: Word) -> Word:
    """Access rights (17 bits) of the attributes of a VMCB; what is not present is unusable."""
    return concat(~attributes[7], attributes[11:8], Word(4, 0), attributes[7:0])
