"""The PDP-11/45 as a machine in the sense of Popek and Goldberg.

Kernel mode is the supervisor mode of the theory; the processor's supervisor and user modes are both
unprivileged.
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.instruction import OperandKind
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine, Setting
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, NotModelledError, Trap
from popek.kernel.practice import Practice
from popek.kernel.words import Word, ite

from . import data, floating, floating_conversions, innocuous, modes, privileged
from .deprivileging import techniques
from .left_open import LEFT_OPEN
from .state import (
    BLOCK,
    CELL_ADDRESS,
    FPS_BITS,
    HANDBOOK,
    IO_PAGE,
    KERNEL,
    MODE_AND_PAGE,
    PAGE,
    PS_BITS,
    UNDEFINED_MODE,
    Pdp11,
    shifted,
)


def build() -> Machine[Pdp11]:
    """The machine with relocation on, unless a setting says otherwise."""
    machine: Machine[Pdp11] = Machine(
        "pdp11-45",
        "DEC PDP-11/45 with KT11-C memory management",
        Pdp11,
        supervisor=lambda state: state.ps.current == KERNEL,
        user=lambda state: state.ps.current != KERNEL,
        source=HANDBOOK,
        operands={kind.name: kind for kind in _operands()},
        settings=_settings(),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=BLOCK,
        deliver=_deliver,
        interruptions=_interruptions(),
        techniques=techniques(),
        left_open=LEFT_OPEN,
        notes=(
            "devices, but for two that interrupt, and the I/O page: a reference to it is a trap on storage",
            "a VMM leaves the I/O page unmapped; where it is mapped, MOV changes PS and the map",
            "data space is off (MMR3 = 0), management traps are off (MMR0<9> = 0), A and W bits are left out",
            "MMR1, the abort bits of MMR0, and MMR2 but as an abort leaves it (frozen until they are cleared)",
            "the stack limit",
            "what floating point arithmetic makes of the operands: a function of which nothing is taken to be known",
            "the trace trap after an instruction that starts with T = 1",
            "MTPS and MFPS: the 11/45 has none, both are reserved instructions",
        ),
        interrupt_masks=("ps.priority",),
        architecture=listing("pdp11"),
        practice=Practice(examples={"lost-interrupt-mask": ("SPL n",)}),
    )
    innocuous.add(machine)
    data.add(machine)
    modes.add(machine)
    floating.add(machine)
    floating_conversions.add(machine)
    privileged.add(machine)
    return machine


def _operands() -> tuple[OperandKind, ...]:
    def general(name: str, letters: str = "R") -> OperandKind:
        return OperandKind(
            name,
            {"": 3},
            valid=lambda parts: parts[""] < 6,
            spell=lambda parts: name.replace(letters, f"R{parts['']}"),
        )

    def indexed(name: str) -> OperandKind:
        return OperandKind(
            name,
            {"index": 16, "register": 3},
            valid=lambda parts: parts["register"] < 6,
            spell=lambda parts: name.replace("X(R)", f"{parts['index']:o}(R{parts['register']})"),
            make=lambda parts: (parts["index"], parts["register"]),
        )

    def second_word(name: str) -> OperandKind:
        return OperandKind(name, {"": 16}, spell=lambda parts: name.replace("i", f"{parts['']:o}"))

    even = OperandKind(
        "Re",
        {"": 3},
        valid=lambda parts: (parts[""] < 6) & ~parts[""][0],
        spell=lambda parts: f"R{parts['']}",
    )

    def number(name: str, width: int) -> OperandKind:
        return OperandKind(name, {"": width}, spell=lambda parts: f"{parts['']:o}")

    return (
        general("R"),
        general("(R)"),
        general("(R)+"),
        general("-(R)"),
        general("@(R)+"),
        general("@-(R)"),
        indexed("X(R)"),
        indexed("@X(R)"),
        general("Rn", "Rn"),
        even,
        *map(second_word, ("#i", "@#i", "i(PC)", "@i(PC)")),
        OperandKind("FS", {"": 3}, valid=lambda parts: parts[""] < 6, spell=lambda parts: f"AC{parts['']}"),
        OperandKind("AC", {"": 2}, spell=lambda parts: f"AC{parts['']}"),
        number("d", 8),
        number("o", 6),
        number("n", 3),
        number("t", 8),
    )


def _settings() -> tuple[Setting, ...]:
    return (
        Setting(
            "MME",
            "memory management",
            (0, 1),
            lambda state, value: state.mme == value,
            1,
            "mme",
            labels={0: "off", 1: "on"},
        ),
    )


def _exists(state: Pdp11) -> Word:
    """The processor runs, in a mode that is defined, and core ends below the I/O page."""
    defined = (state.ps.current != UNDEFINED_MODE) & (state.ps.previous != UNDEFINED_MODE)
    bits = (state.ps.value & (0o177777 ^ PS_BITS)) == 0
    bits = bits & ((state.fps.value & (0o177777 ^ FPS_BITS)) == 0)
    return defined & bits & state.running & ~state.waiting & (state.last < IO_PAGE)


def _advance(cpu: Pdp11, operands: Mapping[str, Word]) -> None:
    cpu.begun = cpu.pc
    cpu.pc = cpu.pc + 2


def _relocate(state: Pdp11, offset: Word) -> Pdp11:
    """The same program, in every mode, `offset` blocks further on in core; it needs relocation to be on."""
    moved, core = state.copy(), state.memory
    by = ite(state.mme, offset, Word(BLOCK, 0))
    par, space_par = state.par, state.space_par
    moved.par = Memory(PAGE, BLOCK, lambda page: par.load(page) + by)
    moved.space_par = Memory(MODE_AND_PAGE, BLOCK, lambda place: space_par.load(place) + by)
    moved.memory = Memory(CELL_ADDRESS, 16, lambda cell: core.load(shifted(cell, -by)))
    return moved


def _deliver(before: Pdp11, trap: Trap[Pdp11]) -> Pdp11:
    """Through the trap's vector; an abort leaves in MMR2 where its instruction begins.

    Raises:
        NotModelledError: as for `_through`.
    """
    cpu = _through(trap.state, trap.vector.number)
    if trap.error_code is not None:
        cpu.mmr2 = trap.error_code
    return cpu


def _through(before: Pdp11, number: int) -> Pdp11:
    """PC and PS from a vector in kernel space; the old ones onto the new mode's stack.

    Raises:
        NotModelledError: the vector cannot be read, the stack cannot be written, or the mode is undefined.
    """
    cpu = before.copy()
    cpu.begun = before.pc
    old_ps, old_pc = cpu.ps.value, cpu.pc
    vector = Word(16, number)
    try:
        pc, new = cpu.load_kernel(vector), cpu.load_kernel(vector + 2) & PS_BITS
        if new[15:14] == UNDEFINED_MODE:
            raise NotModelledError("mode bits 10 in a trap vector")
        cpu.enter(new[15:14])
        cpu.ps.value = new.replace(13, 12, old_ps[15:14])
        cpu.push(old_ps)
        cpu.push(old_pc)
    except Fault as second:
        raise NotModelledError(f"{second.vector} while a trap is delivered") from None
    cpu.pc = pc
    return cpu


def _interruptions() -> tuple[Interruption[Pdp11], ...]:
    """A request is taken where its level is above the processor's priority (handbook, chapter 2, "Interrupts")."""

    def device(name: str, level: int, vector: int) -> Interruption[Pdp11]:
        return Interruption(
            name,
            lambda state, given: state.ps.priority < level,
            lambda state, given: _through(state, vector),
            source=f"{HANDBOOK}, chapter 2 and appendix B",
        )

    requested = Interruption[Pdp11](
        "program interrupt request",
        lambda state, given: (state.pirq >> state.ps.priority.zero_extend(7)) != 0,
        lambda state, given: _through(state, 0o240),
        source=f"{HANDBOOK}, program interrupt requests",
    )
    return device("line clock interrupt", 6, 0o100), device("console interrupt", 4, 0o60), requested
