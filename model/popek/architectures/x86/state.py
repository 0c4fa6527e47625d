"""The state that every mode has, and how it refers to storage (Intel SDM vol. 3A, chapters 2 to 5).

Memory is linear memory.  Of protection by pages it has two ranges, which is all a VMM needs it for; `paging` has
page tables for a machine that walks them.  A segment register has its selector and its hidden part: base,
byte-granular limit and access rights.
"""

from __future__ import annotations

from typing import ClassVar

from popek.kernel.outcome import MemoryFault
from popek.kernel.state import (
    BankComponent,
    Group,
    GroupComponent,
    MemoryComponent,
    RegisterComponent,
    Role,
    State,
    WordComponent,
    register,
    word,
)
from popek.kernel.words import Word, any_of, ite

from .exceptions import PF
from .registers import (
    DR6_DEFINED,
    DR6_FIXED,
    DR7_DEFINED,
    DR7_FIXED,
    SEGMENT_NAMES,
    Cr0,
    Cr4,
    Dr6,
    Dr7,
    Eflags,
    Rights,
    Selector,
    Shadow,
)

RESOURCE, MODE, HIDDEN = Role.RESOURCE, Role.MODE, Role.HIDDEN

CPL_BEARING = {"selector.rpl": MODE, "rights.dpl": MODE}
"""Roles in CS and SS, which show the current privilege level."""
SYSTEM_SEGMENT = {"base": RESOURCE, "limit": RESOURCE, "rights": RESOURCE}
"""Roles in LDTR and TR."""
DATA_REGISTERS = ("es", "ds", "fs", "gs")


class Segment(Group):
    """A segment register: the visible selector and the hidden descriptor cache.

    A base is as wide as linear addresses: 32 bits, which IA-32e mode makes 64.
    """

    selector = register(Selector, 16, role=RESOURCE)
    base = word(32, role=HIDDEN)
    limit = word(32, role=HIDDEN, reset=0xFFFFFFFF)
    rights = register(Rights, 17, role=HIDDEN, reset=0xC093)


class TableRegister(Group):
    """GDTR and IDTR: base and 16-bit limit."""

    base = word(32, role=RESOURCE)
    limit = word(16, role=RESOURCE)


class Pages(Group):
    """A range of linear addresses: `size` bytes from `base`; empty when size is 0."""

    base = word(32, role=HIDDEN)
    size = word(32, role=HIDDEN)


class X86(State):
    """The processor, its memory and its ports, as far as every mode has them.

    What is here without a value each mode declares, with its own widths.
    """

    translation: ClassVar[Translation]
    segmentation: ClassVar[Segmentation]

    gpr: BankComponent
    eflags: RegisterComponent[Eflags]
    es: GroupComponent[Segment]
    cs: GroupComponent[Segment]
    ss: GroupComponent[Segment]
    ds: GroupComponent[Segment]
    fs: GroupComponent[Segment]
    gs: GroupComponent[Segment]
    gdtr: GroupComponent[TableRegister]
    idtr: GroupComponent[TableRegister]
    ldtr: GroupComponent[Segment]
    tr: GroupComponent[Segment]
    cr0: RegisterComponent[Cr0]
    cr2: WordComponent
    cr3: WordComponent
    cr4: RegisterComponent[Cr4]
    pkru: WordComponent
    dr: BankComponent
    dr6: RegisterComponent[Dr6]
    dr7: RegisterComponent[Dr7]
    tsc: WordComponent
    pmc: MemoryComponent
    cpuid: MemoryComponent
    ports: MemoryComponent
    halted: WordComponent
    cache_dirty: WordComponent
    tlb_stale: WordComponent
    shadow: RegisterComponent[Shadow]
    reserved: GroupComponent[Pages]
    read_only: GroupComponent[Pages]
    extended: WordComponent
    memory: MemoryComponent

    @property
    def cpl(self) -> Word:
        """The current privilege level, 2 bits, in every mode."""
        raise NotImplementedError

    @property
    def no_execute(self) -> Word:
        """IA32_EFER.NXE: entries of page tables have the XD flag (width 1)."""
        raise NotImplementedError

    def read_register(self, number: Word | int, size: int) -> Word:
        """A general register, `size` bits."""
        raise NotImplementedError

    def write_register(self, number: Word | int, value: Word) -> None:
        """Set a general register of the value's width."""
        raise NotImplementedError

    def whole_register(self, number: Word | int) -> Word:
        """A general register as the operating mode has it, as wide as the widest: what it lacks is 0."""
        return self.gpr[number]

    def segment(self, number: Word | int) -> Segment:
        """A segment register by its encoding: ES CS SS DS FS GS."""
        kind = type(self).es.kind
        if isinstance(number, int) or number.concrete:
            return kind(self, (SEGMENT_NAMES[int(number)],))
        return kind(self, SEGMENT_NAMES, number)


# -- references to storage ------------------------------------------------------------------------


class Segmentation:
    """How a mode makes linear addresses from segments and offsets, and where its stack is."""

    def linear_address(
        self, cpu: X86, number: Word, offset: Word, size: int, *, write: bool, checked: bool = False
    ) -> Word:
        """The linear address of a `size`-byte access through a segment register, by its encoding (3 bits).

        Args:
            checked: the segment was found to allow it.

        Raises:
            MemoryFault: the access is not allowed.
        """
        raise NotImplementedError

    def stack_offset(self, cpu: X86, distance: int) -> Word:
        """The offset in SS `distance` bytes above the stack pointer."""
        raise NotImplementedError

    def move_stack_pointer(self, cpu: X86, distance: Word | int) -> None:
        """Add to the stack pointer, as wide as it is."""
        raise NotImplementedError


class Translation:
    """Storage is linear memory; `reserved` and `read_only` are kept from code above CPL 0.

    Args:
        segments: truncated segments keep it out at rings 1 and 2, too, where pages alone keep out CPL 3.
    """

    def __init__(self, *, segments: bool = True) -> None:
        self._segments = segments

    def permit(self, cpu: X86, address: Word, size: int, *, write: bool) -> None:
        """Check a reference of `size` bytes by the program.

        Raises:
            MemoryFault: #PF.
        """
        barred = overlaps(cpu.reserved, address, size)
        if write:
            barred = barred | overlaps(cpu.read_only, address, size)
        kept_out = cpu.cpl != 0 if self._segments else cpu.cpl == 3
        if kept_out & barred:
            raise MemoryFault(PF, page_fault_code(cpu, write))

    def load(self, cpu: X86, address: Word, size: int) -> Word:
        """`size` bytes, little-endian, of a reference that was permitted."""
        return cpu.memory.load_little_endian(address, size)

    def store(self, cpu: X86, address: Word, value: Word) -> None:
        """Store whole bytes, little-endian, where that was permitted."""
        cpu.memory = cpu.memory.store_little_endian(address, value)

    def system_load(self, cpu: X86, address: Word, size: int) -> Word:
        """Bytes of a system table: an implicit supervisor access."""
        return cpu.memory.load_little_endian(address, size)

    def system_store(self, cpu: X86, address: Word, value: Word) -> None:
        """Store bytes of a system table."""
        cpu.memory = cpu.memory.store_little_endian(address, value)


PRESENT, WRITE, USER, RESERVED, KEY = 1, 2, 4, 8, 32
"""Bits of the error code of #PF (SDM vol. 3A, "Page-Fault Error Code")."""


def overlaps(pages: Pages, address: Word, size: Word | int) -> Word:
    """Whether an access of `size` bytes touches the range; width 1."""
    if isinstance(size, int):
        return any_of(address + i - pages.base < pages.size for i in range(size))
    inside = address - pages.base < pages.size
    reaches = (pages.base - address < size) & (pages.size != 0)
    return inside | reaches


def page_fault_code(cpu: X86, write: bool) -> Word:
    """P = 1, W, U/S (SDM vol. 3A, "Page-Fault Error Code")."""
    code = Word(16, PRESENT | WRITE if write else PRESENT)
    return ite(cpu.cpl == 3, code | USER, code)


# -- what registers may hold ----------------------------------------------------------------------


def debug_registers_exist(cpu: X86) -> Word:
    """The reserved bits of DR6 and DR7 are as every write leaves them (SDM vol. 3B, "Debug Registers"; width 1)."""
    dr6, dr7 = cpu.dr6.value, cpu.dr7.value
    return ((dr6 & (DR6_DEFINED ^ 0xFFFFFFFF)) == DR6_FIXED) & (
        (dr7 & (DR7_DEFINED ^ 0xFFFFFFFF)) == DR7_FIXED
    )


def writable_data(segment: Segment) -> Word:
    """It is present, writable data (width 1)."""
    rights = segment.rights
    present = (rights.unusable == 0) & (rights.p == 1) & (rights.s == 1)
    return present & (rights.type[3] == 0) & (rights.type[1] == 1)


def null_or_readable(segment: Segment) -> Word:
    """What DS, ES, FS and GS hold in protected mode: nothing, data or code that may be read (width 1)."""
    rights = segment.rights
    code_unreadable = (rights.type[3] == 1) & (rights.type[1] == 0)
    return (rights.unusable == 1) | ((rights.p == 1) & (rights.s == 1) & ~code_unreadable)


def null_or_local_table(segment: Segment) -> Word:
    """What LDTR holds (width 1)."""
    rights = segment.rights
    return (rights.unusable == 1) | ((rights.p == 1) & (rights.s == 0) & (rights.type == 2))


def task_state(segment: Segment, types: tuple[int, ...]) -> Word:
    """What TR holds: a busy TSS of one of these types (width 1)."""
    rights = segment.rights
    return (rights.unusable == 0) & (rights.p == 1) & (rights.s == 0) & rights.type.isin(types)
