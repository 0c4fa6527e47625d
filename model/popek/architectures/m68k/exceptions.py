"""How the 68000 and the 68010 take exceptions and interrupts (User's Manual, section 6)."""

from __future__ import annotations

from typing import Final

from popek.kernel.interruption import Given, Interruption
from popek.kernel.outcome import NotModelledError, Trap
from popek.kernel.words import Word

from .state import MANUAL, M68k, is_68010

SUPERVISOR: Final = 1 << 13
TRACE: Final = 1 << 15
LONG_FORMAT: Final = 8 << 12
LONG_FRAME, OWN_WORDS = 58, 16
AUTOVECTOR: Final = 24
"""The vector of an autovectored interrupt of level 0, so to say."""


def deliver(before: M68k, trap: Trap[M68k]) -> M68k:
    """The frame on the supervisor's stack, and the handler's address from the vector table.

    Raises:
        NotModelledError: as for `_through`.
    """
    number = Word(16, trap.vector.number)
    if trap.error_code is None:
        return _through(trap.state, number, level=None)
    return _through(trap.state, number, level=None, failed=(before.pc, trap.error_code))


def _through(before: M68k, number: Word, level: Word | None, failed: tuple[Word, Word] | None = None) -> M68k:
    """SR and PC onto the supervisor's stack, on the 68010 below them the format word; PC from the vector.

    Args:
        number: of the vector; 16 bits.
        level: the interrupt's, which becomes the mask.
        failed: of a bus or address error: where its instruction begins, and the address that was referred to.

    Raises:
        NotModelledError: the stack or the vector cannot be reached: a bus error while an exception is taken.
    """
    cpu = before.copy()
    old = cpu.sr.value
    cpu.set_status((old | SUPERVISOR) & (0xFFFF ^ TRACE))
    if level is not None:
        cpu.sr.i = level
    cpu.running = Word(1, 1)
    offset = number << 2
    later = bool(is_68010(cpu))
    parts = _frame(cpu, old, cpu.pc, offset, later=later, failed=failed)
    size = LONG_FRAME if later and failed is not None else sum(part.width // 8 for part in parts)
    vector = cpu.vbr + offset.zero_extend(32)
    if ~(cpu.has_room(size) & cpu.has_vector(vector)):
        raise NotModelledError("a bus or address error while an exception is taken")
    if later and failed is not None:
        cpu.put(cpu.sp - 2 * OWN_WORDS, failed[0])
    cpu.sp = cpu.sp - size
    at = cpu.sp
    for part in parts:
        cpu.put(at, part)
        at = at + part.width // 8
    cpu.pc = cpu.load(vector, 32)
    cpu.ahead = Word(3, 1) if failed is not None else cpu.ahead  # the handler's first instruction begins
    return cpu


def _frame(
    cpu: M68k, status: Word, pc: Word, offset: Word, *, later: bool, failed: tuple[Word, Word] | None
) -> tuple[Word, ...]:
    """What is stacked, from the stack pointer up (sections 6.2.4 and 6.3.9).

    The PC of a bus or address error has run ahead.

    The 68000's frame of such an error begins with an access word, the address and the instruction's first word.  The
    68010's has, behind the format, a status word, the address, buffers, and 16 words of its own from which it goes on:
    these are held to tell, somewhere, where the instruction begins.
    """
    if failed is None:
        return (status, pc, offset) if later else (status, pc)
    begun, address = failed
    ahead = begun + (cpu.ahead.zero_extend(32) << 1)
    access = cpu.undefined("frame status", 16)
    if later:
        return status, ahead, offset | LONG_FORMAT, access, address
    return access, address, cpu.undefined("frame instruction", 16), status, ahead


def interruptions() -> tuple[Interruption[M68k], ...]:
    """Autovectored requests: taken above the mask, and level 7 always (section 6.3.2)."""

    def enter(state: M68k, given: Given) -> M68k:
        level = given["level"]
        return _through(state, level.zero_extend(16) + AUTOVECTOR, level)

    return (
        Interruption(
            "interrupt",
            lambda state, given: (given["level"] > state.sr.i) | (given["level"] == 7),
            enter,
            given={"level": 3},
            may=lambda given: given["level"] != 0,
            source=f"{MANUAL}, section 6.3.2",
        ),
    )
