"""VMRUN VMLOAD VMSAVE VMMCALL STGI CLGI INVLPGA SKINIT (AMD64 APM vol. 3).

In guest mode and not intercepted, VMLOAD and VMSAVE reach physical memory, not the guest's: that is for the VMM to
prevent, or for the processor where it virtualizes them.  The guest's physical memory is the memory of the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from popek.architectures.x86.access import privileged
from popek.architectures.x86.descriptors import BUSY_TSS_16, BUSY_TSS_32
from popek.architectures.x86.exceptions import GP, UD
from popek.architectures.x86.msrs import (
    IA32_EFER,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
)
from popek.architectures.x86.state import Segment, null_or_local_table, null_or_readable, task_state
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import FALSE, Word, ite

from ...ia32.state import EAX, EBP, EBX, ECX, EDI, EDX, ESI, ESP
from ...x86_64.state import PHYSICAL_BITS
from .state import Svm, SvmIa32, SvmX64
from .transitions import packed, run_guest, unpacked

# Offsets in the VMCB of what VMLOAD and VMSAVE move (APM vol. 2, appendix B).
_SEGMENTS: Final = {"fs": 0x440, "gs": 0x450, "ldtr": 0x470, "tr": 0x490}
_REGISTERS: Final = {
    "msr.star": 0x600, "msr.lstar": 0x608, "msr.cstar": 0x610, "msr.fmask": 0x618, "msr.kernel_gs_base": 0x620,
    "msr.sysenter_cs": 0x628, "msr.sysenter_esp": 0x630, "msr.sysenter_eip": 0x638,
}  # fmt: skip
_MSRS: Final = {IA32_SYSENTER_CS: 0x628, IA32_SYSENTER_ESP: 0x630, IA32_SYSENTER_EIP: 0x638}


def _enabled(cpu: Svm) -> None:
    """#UD unless EFER.SVME, and in real-address and virtual-8086 mode; then #GP(0) above CPL 0."""
    if ~cpu.svme | ~cpu.has_svm_instructions:
        raise Fault(UD)
    privileged(cpu)


def _vmcb(cpu: Svm) -> Word:
    """The address in rAX: a page of physical memory.

    Raises:
        Fault: #GP(0), it is not aligned, or there is no such page.
    """
    address = cpu.whole_register(EAX)
    beyond = address[address.width - 1 : PHYSICAL_BITS] != 0 if address.width == 64 else FALSE
    if (address[11:0] != 0) | beyond:
        raise Fault(GP, 0)
    return address


def vmrun(cpu: Svm) -> None:
    """Run the guest of the VMCB at rAX; in a guest it is intercepted, for VMRUN demands that."""
    _enabled(cpu)
    address = _vmcb(cpu)
    cpu.interception.late(cpu, "VMRUN")
    if cpu.guest_mode:
        raise NotModelledError("VMRUN in a guest that nobody intercepts")
    if not isinstance(cpu, SvmIa32):
        raise NotModelledError("VMRUN")
    run_guest(cpu, address)


def vmmcall(cpu: Svm) -> None:
    """Call the VMM, at every level and in every mode; #UD where nobody intercepts it."""
    cpu.interception.early(cpu, "VMMCALL")
    raise Fault(UD)


def vmload(cpu: Svm) -> None:
    """FS, GS, TR, LDTR with their hidden parts and the registers of fast system calls from the VMCB at rAX."""
    _enabled(cpu)
    address = _vmcb(cpu)
    cpu.interception.late(cpu, "VMLOAD")
    memory = _reached(cpu)
    for name, offset in _SEGMENTS.items():
        segment: Segment = getattr(cpu, name)
        place = address + offset
        segment.selector = memory.load_little_endian(place, 2)
        segment.rights = unpacked(memory.load_little_endian(place + 2, 2))
        segment.limit = memory.load_little_endian(place + 4, 4)
        segment.base = canonical(memory.load_little_endian(place + 8, segment.base.width // 8))
    types = (BUSY_TSS_16, BUSY_TSS_32) if isinstance(cpu, SvmIa32) else (BUSY_TSS_32,)
    tables = task_state(cpu.tr, types) & null_or_local_table(cpu.ldtr)
    if not tables & null_or_readable(cpu.fs) & null_or_readable(cpu.gs):
        raise NotModelledError("a VMCB with segments that no load of an instruction gives")
    if isinstance(cpu, SvmX64):
        for component, offset in _REGISTERS.items():
            width = cpu[component].width
            cpu[component] = canonical(memory.load_little_endian(address + offset, width // 8))
        return
    assert isinstance(cpu, SvmIa32)
    for number, offset in _MSRS.items():
        value = memory.load_little_endian(address + offset, 4)
        cpu.msr = cpu.msr.store(Word(32, number), value.zero_extend(64))


def vmsave(cpu: Svm) -> None:
    """What VMLOAD loads, to the VMCB at rAX."""
    _enabled(cpu)
    address = _vmcb(cpu)
    cpu.interception.late(cpu, "VMSAVE")
    memory = _reached(cpu)
    for name, offset in _SEGMENTS.items():
        segment: Segment = getattr(cpu, name)
        place = address + offset
        memory = memory.store_little_endian(place, segment.selector.value)
        memory = memory.store_little_endian(place + 2, packed(segment.rights.value))
        memory = memory.store_little_endian(place + 4, segment.limit)
        memory = memory.store_little_endian(place + 8, segment.base.zero_extend(64))
    if isinstance(cpu, SvmX64):
        for component, offset in _REGISTERS.items():
            memory = memory.store_little_endian(address + offset, cpu[component].zero_extend(64))
    elif isinstance(cpu, SvmIa32):
        for number, offset in _MSRS.items():
            memory = memory.store_little_endian(address + offset, cpu.msr.load(Word(32, number)))
    if cpu.guest_mode & cpu.enables.virtual_vmload_vmsave:
        cpu.memory = memory
    else:
        cpu.host_memory = memory


def canonical(value: Word) -> Word:
    """An address as the processor keeps it: sign-extended from bit 47 where it has 64 bits."""
    return value if value.width < 64 else value[47:0].sign_extend(64)


def _reached(cpu: Svm) -> Memory:
    """Physical memory; the guest's own where the processor virtualizes VMLOAD and VMSAVE."""
    return cpu.memory if cpu.guest_mode & cpu.enables.virtual_vmload_vmsave else cpu.host_memory


def _global_interrupt_flag(name: str, value: int) -> Callable[[Svm], None]:
    def semantics(cpu: Svm) -> None:
        """GIF, or in a guest with a virtual one that."""
        _enabled(cpu)
        cpu.interception.late(cpu, name)
        if cpu.guest_mode & cpu.enables.vgif:
            cpu.virtual_gif = Word(1, value)
        else:
            cpu.gif = Word(1, value)

    return semantics


def invlpga(cpu: Svm) -> None:
    """Forget the translation of the page at rAX in the address space ECX."""
    _enabled(cpu)
    cpu.interception.late(cpu, "INVLPGA")
    cpu.tlb_stale = Word(1, 0)


_RESET: Final = (
    *("cr0", "cr2", "cr3", "cr4", "eflags", "dr6", "dr7", "cs", "ss", "ds", "es", "gdtr", "idtr"),
    *_SEGMENTS,
)


def skinit(cpu: Svm) -> None:
    """Start the secure loader at EAX, 64 KiB of physical memory: the state is as after INIT, and GIF is 0.

    What it does to the TPM, to devices and to other processors is outside the model.
    """
    _enabled(cpu)
    cpu.interception.late(cpu, "SKINIT")
    if not isinstance(cpu, SvmIa32):
        raise NotModelledError("leaving IA-32e mode")
    base = cpu.gpr[EAX] & 0xFFFF0000
    entry = cpu.host_memory.load_little_endian(base, 2)
    fresh = type(cpu).reset()
    for name in (
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "eflags",
        "dr6",
        "dr7",
        *_SEGMENTS,
        "cs",
        "ss",
        "ds",
        "es",
        "gdtr",
        "idtr",
    ):
        for slot in (s.name for s in type(cpu).layout if s.name == name or s.name.startswith(f"{name}.")):
            cpu[slot] = fresh[slot]
    for number in (ECX, EDX, EBX, EBP, ESI, EDI):
        cpu.gpr[number] = Word(32, 0)
    cpu.gpr[EAX], cpu.gpr[ESP] = base, base + 0x10000
    cpu.eip = base + entry.zero_extend(32)
    cpu.msr = cpu.msr.store(Word(32, IA32_EFER), Word(64, 0))
    cpu.gif = Word(1, 0)


INSTRUCTIONS: Final[dict[str, Callable[[Svm], None]]] = {
    "VMRUN": vmrun,
    "VMMCALL": vmmcall,
    "VMLOAD": vmload,
    "VMSAVE": vmsave,
    "STGI": _global_interrupt_flag("STGI", 1),
    "CLGI": _global_interrupt_flag("CLGI", 0),
    "INVLPGA": invlpga,
    "SKINIT": skinit,
}
"""The semantics by form."""


def reads_svme(semantics: Callable[..., None]) -> Callable[..., None]:
    """RDMSR of x86-64 with EFER.SVME."""

    def run(cpu: SvmX64) -> None:
        semantics(cpu)
        low = cpu.gpr[EAX].replace(12, 12, cpu.enabled)
        cpu.gpr[EAX] = ite(_of_efer(cpu), low, cpu.gpr[EAX])

    return functools.wraps(semantics)(run)


def writes_svme(semantics: Callable[..., None]) -> Callable[..., None]:
    """WRMSR of x86-64 with EFER.SVME.

    What a guest does after it cleared EFER.SVME is undefined (APM vol. 2, "Extended Feature Enable Register"): a VMM
    owns that bit, so it is harmed at once.
    """

    def run(cpu: SvmX64) -> None:
        value, own = cpu.gpr[EAX], _of_efer(cpu)
        cpu.gpr[EAX] = ite(own, value.replace(12, 12, 0), value)
        semantics(cpu)
        cpu.gpr[EAX] = value
        cpu.enabled = ite(own, value[12], cpu.enabled)

    return functools.wraps(semantics)(run)


def _of_efer(cpu: Svm) -> Word:
    return cpu.read_register(ECX, 32) == IA32_EFER
