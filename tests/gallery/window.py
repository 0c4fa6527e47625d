"""The paper's machine with instructions made to deceive a checker.  `window.toml` says what each should get.

Added to the state are a clock, a mask with a setting, two stack pointers of which the mode selects one, and a register
that nothing reads at once.
"""

from __future__ import annotations

import attrs

from popek.architectures.pg74.machine import ADDRESS, PRIVILEGED_TRAP, SUPERVISOR_CALL, WORD, Pg74, build
from popek.architectures.pg74.state import MEMORY_TRAP
from popek.kernel.machine import Machine, Setting
from popek.kernel.outcome import Fault
from popek.kernel.state import Role, word
from popek.kernel.words import Word, ite


class Window(Pg74):
    """The paper's state and what the instructions here need."""

    clock = word(8, role=Role.TIME)
    mask = word(ADDRESS, role=Role.HIDDEN, reset=0xFF)
    kernel_stack = word(ADDRESS)
    user_stack = word(ADDRESS)
    latch = word(ADDRESS, role=Role.HIDDEN)


def _map(plain, guest: Window, private: Window) -> Window:
    hardware = plain(guest, private)
    hardware.latch = guest.latch
    # In user mode the hardware uses the user's stack: it is the one that the guest uses.
    hardware.user_stack = ite(guest.mode == 1, guest.user_stack, guest.kernel_stack)
    return hardware


def _make() -> Machine[Window]:
    paper = build()
    technique = paper.technique()
    own = ("clock", "kernel_stack")
    mine = attrs.evolve(
        technique,
        map=lambda guest, private: _map(technique.map, guest, private),
        owned=(*technique.owned, *own),
        shadowed=(*technique.shadowed, *own, "user_stack"),
        # The mask is soldered, as the straps are.
        private=lambda guest, private: technique.private(guest, private) & (guest.mask == private.mask),
    )
    masks = Setting(
        "MASK",
        "the mask hides every bit of the base (1), or any (0)",
        (0, 1),
        lambda state, value: (value == 0) | (state.mask == 0xFF),
        1,
        concerns=("mask",),
    )
    return attrs.evolve(
        paper,
        name="window",
        state=Window,
        settings=(*paper.settings, masks),
        techniques={mine.name: mine},
        instructions={},
        architecture=None,
    )


machine = _make()


def _word(value: Word) -> Word:
    return value.zero_extend(WORD)


def _only_supervisor(cpu: Window) -> None:
    if cpu.mode == 1:
        raise Fault(PRIVILEGED_TRAP)


# -- harmless -------------------------------------------------------------------------------------


@machine.instruction("NOP")
def nop(cpu: Window) -> None:
    """Nothing."""


@machine.instruction("INCR a")
def increment(cpu: Window, a: Word) -> None:
    """E[a] := E[a] + 1."""
    cpu.store(a, cpu.load(a) + 1)


@machine.instruction("COND a, b")
def conditional(cpu: Window, a: Word, b: Word) -> None:
    """P := a if E[b] = 0."""
    cpu.pc = ite(cpu.load(b) == 0, a, cpu.pc)


@machine.instruction("PCREAD a")
def read_pc(cpu: Window, a: Word) -> None:
    """E[a] := P: the guest's own."""
    cpu.store(a, _word(cpu.pc))


@machine.instruction("XORBASE a")
def no_base(cpu: Window, a: Word) -> None:
    """E[a] := base xor base: reads the base and shows nothing of it."""
    cpu.store(a, _word(cpu.relocation.base ^ cpu.relocation.base))


@machine.instruction("STRAPS a")
def read_straps(cpu: Window, a: Word) -> None:
    """E[a] := the straps, which are alike in both machines."""
    cpu.store(a, _word(cpu.straps.value))


@machine.instruction("CALL")
def call(cpu: Window) -> None:
    """Trap in both modes, P behind the instruction."""
    raise Fault(SUPERVISOR_CALL, keeps=True)


@machine.instruction("CALLEVEN")
def call_even(cpu: Window) -> None:
    """Trap in both modes after clearing P's low bit: lost, but lost on the guest's own machine, too."""
    cpu.pc = cpu.pc & 0xFE
    raise Fault(SUPERVISOR_CALL, keeps=True)


@machine.instruction("ILLEGAL")
def illegal(cpu: Window) -> None:
    """Trap in both modes."""
    raise Fault(PRIVILEGED_TRAP)


@machine.instruction("LATCHOUT a")
def read_latch(cpu: Window, a: Word) -> None:
    """E[a] := the latch, which is the guest's."""
    cpu.store(a, _word(cpu.latch))


# -- privileged as it should be -------------------------------------------------------------------


@machine.instruction("SETBASE a")
def set_base(cpu: Window, a: Word) -> None:
    """base := a, in supervisor mode alone."""
    _only_supervisor(cpu)
    cpu.relocation.base = a


@machine.instruction("GETBASE a")
def get_base(cpu: Window, a: Word) -> None:
    """E[a] := base, in supervisor mode alone."""
    _only_supervisor(cpu)
    cpu.store(a, _word(cpu.relocation.base))


@machine.instruction("LATEBASE a")
def set_base_after_memory(cpu: Window, a: Word) -> None:
    """base := E[a]: the storage trap comes before the privileged one."""
    value = cpu.load(a)
    _only_supervisor(cpu)
    cpu.relocation.base = value[7:0]


# -- what lies around the window ------------------------------------------------------------------


@machine.instruction("PEEKBELOW a")
def peek_below(cpu: Window, a: Word) -> None:
    """E[a] := the cell below the window: moves with the program, and is not in reach."""
    cpu.store(a, cpu.memory.load(cpu.relocation.base - 1))


@machine.instruction("PEEKABOVE a")
def peek_above(cpu: Window, a: Word) -> None:
    """E[a] := the cell above the window."""
    cpu.store(a, cpu.memory.load(cpu.relocation.base + cpu.relocation.bound))


@machine.instruction("POKEAWAY a")
def poke_unchecked(cpu: Window, a: Word) -> None:
    """E[base + a] := 1 without a check: relocated, and not confined."""
    cpu.memory = cpu.memory.store(cpu.relocation.base + a, Word(WORD, 1))


@machine.instruction("ABSREAD a")
def absolute_read(cpu: Window, a: Word) -> None:
    """E[a] := real cell 5."""
    cpu.store(a, cpu.memory.load(Word(ADDRESS, 5)))


@machine.instruction("ABSWRITE a")
def absolute_write(cpu: Window, a: Word) -> None:
    """Real cell a := 1."""
    cpu.memory = cpu.memory.store(a, Word(WORD, 1))


@machine.instruction("SIZE a")
def read_size(cpu: Window, a: Word) -> None:
    """E[a] := how much storage there is."""
    cpu.store(a, _word(cpu.last))


# -- what shows the base or the bound -------------------------------------------------------------


@machine.instruction("BOUND a")
def read_bound(cpu: Window, a: Word) -> None:
    """E[a] := bound, which the map cuts."""
    cpu.store(a, _word(cpu.relocation.bound))


@machine.instruction("BOUNDOVER a")
def compare_bound(cpu: Window, a: Word) -> None:
    """E[a] := whether the bound is above 16."""
    cpu.store(a, _word(cpu.relocation.bound > 16))


@machine.instruction("CARRY a")
def carry(cpu: Window, a: Word) -> None:
    """E[a] := the carry of base + 128."""
    cpu.store(a, _word((cpu.relocation.base.zero_extend(9) + 128)[8]))


@machine.instruction("TOPBIT a")
def top_bit(cpu: Window, a: Word) -> None:
    """E[a] := the top bit of the base."""
    cpu.store(a, _word(cpu.relocation.base & 128))


@machine.instruction("ONEVALUE a, b")
def one_value(cpu: Window, a: Word, b: Word) -> None:
    """E[a] := base if E[b] is one number of four thousand million, else 0."""
    cpu.store(a, ite(cpu.load(b) == 0x12345678, _word(cpu.relocation.base), Word(WORD, 0)))


@machine.instruction("LATCHIN")
def set_latch(cpu: Window) -> None:
    """The latch := base: nothing shows it at once, LATCHOUT does."""
    cpu.latch = cpu.relocation.base


@machine.instruction("SUPERBASE a")
def base_in_supervisor_mode(cpu: Window, a: Word) -> None:
    """E[a] := base in supervisor mode, 0 in user mode."""
    cpu.store(a, ite(cpu.mode == 0, _word(cpu.relocation.base), Word(WORD, 0)))


# -- the mode -------------------------------------------------------------------------------------


@machine.instruction("MODE a")
def read_mode(cpu: Window, a: Word) -> None:
    """E[a] := M."""
    cpu.store(a, _word(cpu.mode))


@machine.instruction("PARTIAL a")
def partly_privileged(cpu: Window, a: Word) -> None:
    """E[a] := M, privileged for the lower half of the addresses alone."""
    if (cpu.mode == 1) & ~a[7]:
        raise Fault(PRIVILEGED_TRAP)
    cpu.store(a, _word(cpu.mode))


@machine.instruction("PARITY a")
def mode_by_parity(cpu: Window, a: Word) -> None:
    """E[a] := M where the base is even in user mode, or odd in supervisor mode; else a trap."""
    if cpu.mode == cpu.relocation.base[0]:
        raise Fault(PRIVILEGED_TRAP)
    cpu.store(a, _word(cpu.mode))


@machine.instruction("QUIET a")
def trap_in_supervisor_mode(cpu: Window, a: Word) -> None:
    """A trap in supervisor mode, E[a] := 1 in user mode."""
    if cpu.mode == 0:
        raise Fault(SUPERVISOR_CALL)
    cpu.store(a, Word(WORD, 1))


@machine.instruction("STACK a")
def read_stack(cpu: Window, a: Word) -> None:
    """E[a] := the stack pointer that the mode selects."""
    cpu.store(a, _word(ite(cpu.mode == 1, cpu.user_stack, cpu.kernel_stack)))


@machine.instruction("USTACK a")
def read_user_stack(cpu: Window, a: Word) -> None:
    """E[a] := the user's stack pointer, in either mode."""
    cpu.store(a, _word(cpu.user_stack))


# -- control --------------------------------------------------------------------------------------


@machine.instruction("SILENTBASE a")
def silent_base(cpu: Window, a: Word) -> None:
    """base := a in supervisor mode, nothing in user mode."""
    cpu.relocation.base = ite(cpu.mode == 0, a, cpu.relocation.base)


@machine.instruction("ANYBASE a")
def any_base(cpu: Window, a: Word) -> None:
    """base := a in both modes."""
    cpu.relocation.base = a


@machine.instruction("WIDEN")
def widen(cpu: Window) -> None:
    """bound := 255 in both modes."""
    cpu.relocation.bound = Word(ADDRESS, 255)


@machine.instruction("DOWN")
def leave_supervisor_mode(cpu: Window) -> None:
    """M := user."""
    cpu.mode = Word(1, 1)


@machine.instruction("BACKDOOR")
def back_door(cpu: Window) -> None:
    """M := supervisor, and on with the next instruction."""
    cpu.mode = Word(1, 0)


@machine.instruction("BACKJUMP a")
def back_jump(cpu: Window, a: Word) -> None:
    """M := supervisor, P := a."""
    cpu.mode, cpu.pc = Word(1, 0), a


@machine.instruction("BACKZERO")
def back_to_zero(cpu: Window) -> None:
    """M := supervisor, P := 0."""
    cpu.mode, cpu.pc = Word(1, 0), Word(ADDRESS, 0)


@machine.instruction("BACKLOAD a, b")
def back_by_storage(cpu: Window, a: Word, b: Word) -> None:
    """M := supervisor and P := E[a], if E[b] = 7."""
    target, right = cpu.load(a)[7:0], cpu.load(b) == 7
    cpu.mode, cpu.pc = ite(right, Word(1, 0), cpu.mode), ite(right, target, cpu.pc)


# -- before a trap --------------------------------------------------------------------------------


@machine.instruction("DIRTYBASE")
def dirty_base(cpu: Window) -> None:
    """In user mode base := 0, and then a trap."""
    if cpu.mode == 1:
        cpu.relocation.base = Word(ADDRESS, 0)
        raise Fault(PRIVILEGED_TRAP, keeps=True)


@machine.instruction("DIRTYCELL")
def dirty_cell(cpu: Window) -> None:
    """In user mode real cell 0 := 1, and then a trap."""
    if cpu.mode == 1:
        cpu.memory = cpu.memory.store(Word(ADDRESS, 0), Word(WORD, 1))
        raise Fault(PRIVILEGED_TRAP, keeps=True)


@machine.instruction("CLOBBER a")
def clobber(cpu: Window, a: Word) -> None:
    """E[a] := E[a] + 1; in user mode E[a] := 0, and then a trap."""
    old = cpu.load(a)
    if cpu.mode == 1:
        cpu.store(a, Word(WORD, 0))
        raise Fault(PRIVILEGED_TRAP, keeps=True)
    cpu.store(a, old + 1)


@machine.instruction("LOSEPC")
def lose_pc(cpu: Window) -> None:
    """In user mode P := 0, and then a trap."""
    if cpu.mode == 1:
        cpu.pc = Word(ADDRESS, 0)
        raise Fault(PRIVILEGED_TRAP, keeps=True)


@machine.instruction("ADDTRAP a")
def add_and_trap(cpu: Window, a: Word) -> None:
    """E[a] := E[a] + 1, in user mode with a trap after it: the old cell can be told from the new."""
    cpu.store(a, cpu.load(a) + 1)
    if cpu.mode == 1:
        raise Fault(PRIVILEGED_TRAP, keeps=True)


# -- settings and time ----------------------------------------------------------------------------


@machine.instruction("MASKED a")
def masked(cpu: Window, a: Word) -> None:
    """E[a] := the bits of the base that the mask does not hide: the setting decides the result."""
    cpu.store(a, _word(cpu.relocation.base & ~cpu.mask))


@machine.instruction("MASKTRAP a")
def trap_by_mask(cpu: Window, a: Word) -> None:
    """E[a] := base unless the mask hides every bit, else a trap: the setting decides whether it traps."""
    if (cpu.mask == 0xFF) & (cpu.mode == 1):
        raise Fault(PRIVILEGED_TRAP)
    cpu.store(a, _word(cpu.relocation.base))


@machine.instruction("CLOCK a")
def read_clock(cpu: Window, a: Word) -> None:
    """E[a] := the clock."""
    cpu.store(a, _word(cpu.clock))


@machine.instruction("LOSEREF")
def lose_then_memory_trap(cpu: Window) -> None:
    """P := P and 254 in user mode alone, then a memory trap: in supervisor mode P stays as it was."""
    if cpu.mode == 1:
        cpu.pc = cpu.pc & 0xFE
    raise Fault(MEMORY_TRAP, memory=True, keeps=True)


@machine.instruction("CLEARREF a")
def clear_then_memory_trap(cpu: Window, a: Word) -> None:
    """E[a] := 0 in user mode alone, then a memory trap."""
    value = cpu.load(a)
    if cpu.mode == 1:
        cpu.store(a, value & 0)
    raise Fault(MEMORY_TRAP, memory=True, keeps=True)


@machine.instruction("LOSEKIND a")
def lose_then_another_trap(cpu: Window, a: Word) -> None:
    """A memory trap in supervisor mode; in user mode P := a, and another trap."""
    if cpu.mode == 1:
        cpu.pc = a
        raise Fault(PRIVILEGED_TRAP, keeps=True)
    raise Fault(MEMORY_TRAP, memory=True, keeps=True)
