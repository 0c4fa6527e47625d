"""How non-root operation treats instructions (SDM vol. 3C, chapter "VMX Non-Root Operation").

Instructions that cause VM exits unconditionally or conditionally, and changes of behaviour without an exit.
A hook forks at most once for an instruction that exits as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from popek.architectures.x86.access import (
    MemoryOperand,
    privileged,
    supervisor_load,
)
from popek.architectures.x86.descriptors import TASK_GATE, Descriptor
from popek.architectures.x86.exceptions import GP, UD
from popek.architectures.x86.interception import (
    Interception,
    PortAccess,
)
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import TRUE, Word, any_of, concat, ite

from ...ia32.descriptors import check_new_tss
from ...x86.state import X86
from . import model_specific, virtual_apic
from .exits import (
    CR_ACCESS,
    IO_INSTRUCTION,
    MOV_DR,
    RDMSR,
    REASONS,
    SOFTWARE_INTERRUPT,
    TASK_SWITCH,
    WRMSR,
    exit_of,
    exit_of_software_exception,
)
from .state import Vmx

Exits = Callable[[Vmx], Word]

UNCONDITIONAL: Final = (
    "CPUID", "GETSEC", "INVD", "XSETBV", "INVEPT", "INVVPID", "VMCALL", "VMCLEAR", "VMLAUNCH", "VMPTRLD",
    "VMPTRST", "VMRESUME", "VMXOFF", "VMXON",
)  # fmt: skip

MODE_DEPENDENT: Final = frozenset(UNCONDITIONAL[4:]) - {"VMCALL"}
"""VMX instructions that some modes lack, where they are undefined before they exit."""

_DESCRIPTOR_TABLES: Final = ("SGDT", "SIDT", "LGDT", "LIDT", "SLDT", "STR", "LLDT", "LTR")


EAX, ECX, EDX = 0, 1, 2
EPTP_SWITCHING, EPTP_ENTRIES = 0, 512


def _primary(name: str) -> Exits:
    return lambda cpu: cpu[f"primary.{name}"]


def _secondary(name: str) -> Exits:
    return lambda cpu: cpu.secondary_control(name)


def _pause(cpu: Vmx) -> Word:
    """PAUSE exiting; the PAUSE-loop's window and gap depend on time, and any PAUSE at CPL 0 may be the last."""
    return cpu.primary.pause_exiting


def _vmcs_field(bitmap: str) -> Callable[[Vmx, Word], Word]:
    """VMREAD and VMWRITE of an encoding, as wide as a general register."""

    def exits(cpu: Vmx, encoding: Word) -> Word:
        shadowed = cpu.secondary_control("vmcs_shadowing") & (encoding >> 15 == 0)
        return ~shadowed | cpu.memories()[bitmap].load(encoding[14:0])

    return exits


def _vm_function(cpu: Vmx) -> Word:
    """VMFUNC of the function in EAX; EPTP switching, the only one, of an entry beyond the list.

    Raises:
        Fault: #UD, VM functions are not enabled, or there can be none of this number.
        NotModelledError: the function is enabled, and looks at the list of EPTPs.
    """
    function, entry = cpu.read_register(EAX, 32), cpu.read_register(ECX, 32)
    if cpu.non_root & (~cpu.secondary_control("enable_vm_functions") | (function > 63)):
        raise Fault(UD)
    enabled = cpu.vm_function_controls >> function.zero_extend(64)
    beyond = (function == EPTP_SWITCHING) & (entry >= EPTP_ENTRIES)
    if cpu.non_root & enabled[0] & ~beyond:
        raise NotModelledError("VM functions")
    return TRUE


CONDITIONAL: Final[Mapping[str, Exits]] = {
    "HLT": _primary("hlt_exiting"),
    "INVLPG": _primary("invlpg_exiting"),
    "INVPCID": _primary("invlpg_exiting"),
    "RDPMC": _primary("rdpmc_exiting"),
    "RDTSC": _primary("rdtsc_exiting"),
    "RDTSCP": _primary("rdtsc_exiting"),
    "UMWAIT": _primary("rdtsc_exiting"),
    "TPAUSE": _primary("rdtsc_exiting"),
    "MWAIT": _primary("mwait_exiting"),
    "MONITOR": _primary("monitor_exiting"),
    "PAUSE": _pause,
    "WBINVD": _secondary("wbinvd_exiting"),
    "WBNOINVD": _secondary("wbinvd_exiting"),
    "RDRAND": _secondary("rdrand_exiting"),
    "RDSEED": _secondary("rdseed_exiting"),
    **{name: _secondary("descriptor_table_exiting") for name in _DESCRIPTOR_TABLES},
}
ENABLED: Final = {
    "RDTSCP": "enable_rdtscp",
    "RDPID": "enable_rdtscp",
    "INVPCID": "enable_invpcid",
    "XSAVES": "enable_xsaves_xrstors",
    "XRSTORS": "enable_xsaves_xrstors",
    "UMWAIT": "enable_user_wait_pause",
    "TPAUSE": "enable_user_wait_pause",
    "UMONITOR": "enable_user_wait_pause",
}

CR0_FIXED, CR0_PAGED, CR4_FIXED = 0x00000020, 0x80000001, 0x00002000  # NE; PG and PE; VMXE


def fixed_cr0(cpu: Vmx) -> Word:
    """The bits of CR0 that must be 1: PE and PG too unless the guest is unrestricted."""
    every = Word(32, CR0_FIXED | CR0_PAGED)
    return ite(cpu.secondary_control("unrestricted_guest"), Word(32, CR0_FIXED), every)


def supports(cpu: Vmx) -> Word:
    """Whether CR0 and CR4 are such as non-root operation needs (width 1)."""
    must = fixed_cr0(cpu)
    return (cpu.cr0.value & must == must) & (cpu.cr4.vmxe == 1)


class NonRoot(Interception[X86]):
    """The hooks in non-root operation; in root operation nothing is different."""

    def recognized(self, cpu: X86, name: str) -> None:
        """#UD where the control that enables the instruction is 0."""
        cpu = _vmx(cpu)
        if name in ENABLED and cpu.non_root & ~cpu.secondary_control(ENABLED[name]):
            raise Fault(UD)

    def instruction(
        self, cpu: X86, name: str, memory: MemoryOperand | None = None, *registers: Word, size: int = 32
    ) -> None:
        """Exit, always or where a control says so."""
        cpu = _vmx(cpu)
        if name in UNCONDITIONAL:
            exits = cpu.has_vmx_instructions if name in MODE_DEPENDENT else TRUE
        elif name in ("VMREAD", "VMWRITE"):
            field = registers[-1] if name == "VMREAD" else registers[0]
            exits = cpu.has_vmx_instructions & _vmcs_field(f"{name.lower()}_bitmap")(cpu, cpu.gpr[field])
        elif name == "VMFUNC":
            exits = _vm_function(cpu)
        elif name in ("XSAVES", "XRSTORS"):
            requested = concat(cpu.read_register(EDX, 32), cpu.read_register(EAX, 32))
            exits = (requested & cpu.supervisor_state & cpu.xss_exiting_bitmap) != 0
        elif name in CONDITIONAL:
            exits = CONDITIONAL[name](cpu)
        else:
            return
        if cpu.non_root & exits:
            exit_of(
                cpu,
                REASONS[name],
                _qualification(cpu, name, memory),
                _details(cpu, name, memory, registers, size),
            )
        if name in ("VMREAD", "VMWRITE") and cpu.non_root & cpu.has_vmx_instructions:
            privileged(cpu)
            raise NotModelledError("VMCS shadowing")

    def read_control_register(self, cpu: X86, number: int, register: Word | None = None) -> Word:
        """CR3-store exiting; the read shadow stands for the bits of CR0 and CR4 that the host owns."""
        cpu = _vmx(cpu)
        actual = super().read_control_register(cpu, number)
        if number == 3 and cpu.non_root & cpu.primary.cr3_store_exiting:
            assert register is not None
            exit_of(cpu, CR_ACCESS, _cr_access(3, 1, register))
        if number in (0, 4):
            mask, shadow = cpu[f"cr{number}_mask"], cpu[f"cr{number}_shadow"]
            actual = actual.zero_extend(mask.width)
            return ite(cpu.non_root, (actual & ~mask) | (shadow & mask), actual)
        return actual

    def write_control_register(self, cpu: X86, number: int, register: Word) -> Word:
        """Exits by mask and shadow, or for CR3 by its control and the CR3 targets.

        Raises:
            Fault: the exit; #GP(0), a bit that VMX operation fixes would change.
        """
        cpu = _vmx(cpu)
        source = cpu.whole_register(register)
        if number == 3:
            known = any_of((cpu.cr3_target_count > n) & (source == cpu.cr3_target[n]) for n in range(4))
            if cpu.non_root & cpu.primary.cr3_load_exiting & ~known:
                exit_of(cpu, CR_ACCESS, _cr_access(3, 0, register))
        if number not in (0, 4):
            return source
        mask, shadow = cpu[f"cr{number}_mask"], cpu[f"cr{number}_shadow"]
        if cpu.non_root & ((source ^ shadow) & mask != 0):
            exit_of(cpu, CR_ACCESS, _cr_access(number, 0, register))
        old = super().read_control_register(cpu, number).zero_extend(mask.width)
        new = ite(cpu.non_root, (source & ~mask) | (old & mask), source)
        must = fixed_cr0(cpu).zero_extend(mask.width) if number == 0 else Word(mask.width, CR4_FIXED)
        if cpu.non_root & (new & must != must):
            raise Fault(GP, 0)
        return new

    def load_machine_status_word(self, cpu: X86, source: Word, memory: MemoryOperand | None) -> Word:
        """An exit where a bit that the host owns would differ from the shadow; PE is only ever set."""
        cpu = _vmx(cpu)
        mask, shadow = cpu.cr0_mask[3:0], cpu.cr0_shadow[3:0]
        differs = (source[3:0] ^ shadow) & mask
        relevant = concat(Word(3, 7), source[0])
        if cpu.non_root & (differs & relevant != 0):
            address = {} if memory is None else {"linear_address": cpu.linear(memory)}
            kind = Word(4, 3 if memory is None else 7)
            exit_of(cpu, CR_ACCESS, concat(source, Word(8, 0), kind, Word(4, 0)), address)
        new = super().load_machine_status_word(cpu, source, memory)
        return ite(cpu.non_root, (new & ~mask) | (cpu.cr0.value[3:0] & mask), new)

    def read_task_priority(self, cpu: X86, register: Word) -> Word:
        """CR8-store exiting; with a TPR shadow, VTPR on the virtual-APIC page (SDM vol. 3C, 30.3)."""
        cpu = _vmx(cpu)
        if cpu.non_root & cpu.primary.cr8_store_exiting:
            exit_of(cpu, CR_ACCESS, _cr_access(8, 1, register))
        shadowed = cpu.virtual_apic.load(Word(12, virtual_apic.VTPR))[7:4]
        shown = super().read_task_priority(cpu, register)
        return ite(cpu.non_root & cpu.primary.use_tpr_shadow, shadowed, shown)

    def write_task_priority(self, cpu: X86, register: Word) -> None:
        """CR8-load exiting; with a TPR shadow, VTPR and what TPR virtualization makes of it (30.1.2, 30.3).

        Raises:
            Fault: the exit; #GP(0) for bits 63:4; the exit for a TPR below the threshold.
        """
        cpu = _vmx(cpu)
        if cpu.non_root & cpu.primary.cr8_load_exiting:
            exit_of(cpu, CR_ACCESS, _cr_access(8, 0, register))
        if not cpu.non_root & cpu.primary.use_tpr_shadow:
            super().write_task_priority(cpu, register)
            return
        new = cpu.gpr[register]
        if new[63:4] != 0:
            raise Fault(GP, 0)
        virtual_apic.write_task_priority(cpu, concat(new[3:0], Word(4, 0)).zero_extend(32))

    def clear_task_switched(self, cpu: X86) -> Word:
        """An exit where the host owns TS and shows it set; TS stays where the host owns it."""
        cpu = _vmx(cpu)
        if cpu.non_root & cpu.cr0_mask[3] & cpu.cr0_shadow[3]:
            exit_of(cpu, CR_ACCESS, Word(64, 2 << 4))
        return cpu.non_root & cpu.cr0_mask[3] & cpu.cr0.ts

    def debug_register(self, cpu: X86, number: int, register: Word, *, write: bool) -> None:
        """MOV-DR exiting, which comes before #GP(0) by CPL and before #UD of DR4 and DR5."""
        cpu = _vmx(cpu)
        if cpu.non_root & cpu.primary.mov_dr_exiting:
            direction = Word(4, 0 if write else 1)
            exit_of(cpu, MOV_DR, concat(register.zero_extend(4), direction, Word(4, number)))

    def port(self, cpu: X86, access: PortAccess) -> None:
        """Bit by bit of the I/O bitmaps, and where the access wraps around; or unconditionally."""
        cpu = _vmx(cpu)
        count = access.size // 8
        listed = any_of(cpu.io_bitmap.load(access.port + n) for n in range(count))
        listed = listed | (access.port > 0x10000 - count)
        exits = ite(cpu.primary.use_io_bitmaps, listed, cpu.primary.unconditional_io_exiting)
        if cpu.non_root & exits:
            exit_of(cpu, IO_INSTRUCTION, _io_access(access), _string(cpu, access))

    def msr(self, cpu: X86, *, write: bool) -> None:
        """Bit by bit of the MSR bitmaps; without them, and for MSRs that they do not list, always."""
        cpu = _vmx(cpu)
        number = cpu.read_register(ECX, 32)
        high = number[31:13] == 0xC0000000 >> 13
        listed = (number[31:13] == 0) | high
        marked = cpu.msr_bitmap.load(concat(Word(1, int(write)), high, number[12:0]))
        if cpu.non_root & (~cpu.primary.use_msr_bitmaps | ~listed | marked):
            exit_of(cpu, WRMSR if write else RDMSR)

    def has_msr(self, cpu: X86, number: Word, stored: Word) -> Word:
        """What every processor with VMX has is there; see `model_specific`."""
        return model_specific.found(_vmx(cpu), number, stored)

    def takes_msr(self, cpu: X86, number: Word, value: Word, stored: Word, accepted: Word) -> Word:
        """What no processor takes is refused; see `model_specific`."""
        return model_specific.taken(_vmx(cpu), number, value, stored, accepted)

    def time_stamp(self, cpu: X86) -> Word:
        """Scaled and offset, where the controls say so."""
        cpu = _vmx(cpu)
        offsetting = cpu.non_root & cpu.primary.use_tsc_offsetting
        scaling = offsetting & cpu.secondary_control("use_tsc_scaling")
        product = cpu.tsc.zero_extend(128) * cpu.tsc_multiplier.zero_extend(128)
        counter = ite(scaling, product[111:48], cpu.tsc)
        return ite(offsetting, counter + cpu.tsc_offset, counter)

    def software_exception(self, cpu: X86, vector: int) -> None:
        """By the exception bitmap."""
        exit_of_software_exception(_vmx(cpu), vector)

    def software_interrupt(self, cpu: X86, vector: Word) -> None:
        """Never exits by itself; what goes wrong while it is delivered tells of it."""
        _vmx(cpu)._vectoring = SOFTWARE_INTERRUPT, vector, None

    def task_switch(
        self, cpu: X86, source: str, selector: Word | None = None, descriptor: Descriptor | None = None
    ) -> None:
        """Always, once the new TSS is found good."""
        cpu = _vmx(cpu)
        if not cpu.non_root:
            return
        if descriptor is not None and descriptor.type == TASK_GATE:
            selector = descriptor.gate_selector
        elif selector is None:
            selector = supervisor_load(cpu, cpu.tr.base, 2)  # the link to the previous task
        check_new_tss(cpu, selector, returning=source == "iret")
        kind = Word(2, ("call", "iret", "jmp", "gate").index(source))
        exit_of(cpu, TASK_SWITCH, concat(kind, Word(14, 0), selector))

    def interrupt_return(self, cpu: X86) -> None:
        """IRET ends blocking by NMI, unless NMIs exit and are not virtual."""
        cpu = _vmx(cpu)
        kept = cpu.non_root & cpu.pin.nmi_exiting & ~cpu.pin.virtual_nmis
        cpu._unblocked = cpu.nmi_blocked & ~kept
        cpu.nmi_blocked = cpu.nmi_blocked & kept


def _vmx(cpu: X86) -> Vmx:
    assert isinstance(cpu, Vmx)
    return cpu


# -- exit qualification and instruction information ------------------------------------------------


def _cr_access(number: int, kind: int, register: Word) -> Word:
    """Control register, access type and general register."""
    return concat(register.zero_extend(4), Word(4, kind), Word(4, number))


def _io_access(access: PortAccess) -> Word:
    """Size, direction, string, operand encoding, port."""
    string = access.memory is not None
    flags = Word(4, (not access.write) | string << 1 | access.repeated << 2 | access.immediate << 3)
    return concat(access.port, Word(9, 0), flags, Word(3, access.size // 8 - 1))


def _string(cpu: Vmx, access: PortAccess) -> dict[str, Word]:
    """INS and OUTS: linear address, address size and segment."""
    if access.memory is None:
        return {}
    segment = access.memory.segment if access.write else Word(3, 0)
    information = concat(segment, Word(5, 0), cpu.string_address_size, Word(7, 0)).zero_extend(32)
    return {"linear_address": cpu.linear(access.memory), "instruction_info": information}


def _qualification(cpu: Vmx, name: str, memory: MemoryOperand | None) -> Word:
    if memory is not None and name == "INVLPG":
        return cpu.linear(memory)
    if name == "MWAIT":
        return cpu.undefined("whether the address-range monitor is armed", 64) & 1
    return Word(64, 0) if memory is None else cpu.displacement(memory)


_WITH_IDENTITY: Final = {"SGDT": 0, "SIDT": 1, "LGDT": 2, "LIDT": 3, "SLDT": 0, "STR": 1, "LLDT": 2, "LTR": 3}


def _details(
    cpu: Vmx, name: str, memory: MemoryOperand | None, registers: tuple[Word, ...], size: int
) -> dict[str, Word]:
    """VM-exit instruction information, where the manual defines it for the instruction.

    Sizes of addresses and operands are those of the code segment; that an offset beyond FFFFH, or a form of another
    operand size, has a prefix is all that is known of prefixes.
    """
    if name not in _WITH_INFORMATION:
        return {}
    first, second = (Word(4, 0), Word(4, 0))
    if registers:
        first = registers[0].zero_extend(4)
        second = registers[-1].zero_extend(4) if len(registers) > 1 else second
    if name in _WITH_IDENTITY:
        second = Word(4, _WITH_IDENTITY[name])
    elif memory is not None:
        second, first = first, Word(4, 0)
    elif name == "VMWRITE":  # its r/m operand is the source
        first, second = second, first
    segment = Word(3, 0) if memory is None else memory.segment
    absent = Word(1, int(memory is not None))  # index and base registers: the operand has none
    operand_size = cpu.wide_code if name in ("SGDT", "SIDT") else Word(1, int(size == 32))
    return {
        "instruction_info": concat(
            second, absent, Word(4, 0), absent, Word(4, 0), segment, Word(3, 0), operand_size,
            Word(1, int(memory is None)), cpu.address_size(memory), first, Word(3, 0),
        )
    }  # fmt: skip


_WITH_INFORMATION: Final = frozenset(
    {*_DESCRIPTOR_TABLES, "INVEPT", "INVVPID", "INVPCID", "VMCLEAR", "VMPTRLD", "VMPTRST", "VMREAD", "VMWRITE",
     "VMXON", "RDRAND", "RDSEED", "UMWAIT", "TPAUSE", "XSAVES", "XRSTORS"}
)  # fmt: skip
