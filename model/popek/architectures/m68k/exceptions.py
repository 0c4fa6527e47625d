"""How the 68000 and the 68010 take exceptions and interrupts (User's Manual, section 6)."""

from __future__ import annotations

from typing import Final

from popek.kernel.interruption import Given, Interruption
from popek.kernel.outcome import Fault, NotModelledError, Trap
from popek.kernel.words import Word

from .state import MANUAL, M68k, is_68010

SUPERVISOR: Final = 1 << 13
TRACE: Final = 1 << 15
LONG_FORMAT: Final = 8 << 12
OWN_WORDS, BUFFER_WORDS = 16, 6
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
    try:
        if failed is None:
            if is_68010(cpu):
                cpu.push(offset)
            _push_state(cpu, old, cpu.pc)
        else:
            _push_failure(cpu, old, offset, *failed)
        cpu.pc = cpu.load(cpu.vbr + offset.zero_extend(32), 32)
    except Fault as second:
        raise NotModelledError(f"{second.vector} while an exception is taken") from None
    return cpu


def _push_state(cpu: M68k, status: Word, pc: Word) -> None:
    cpu.push(pc)
    cpu.push(status)


def _push_failure(cpu: M68k, status: Word, offset: Word, begun: Word, address: Word) -> None:
    """The frame of a bus or address error (section 6.3.9); its PC has run ahead.

    Besides PC and SR the 68000's has the instruction's first word, the address and an access word.  The 68010's has a
    status word, the address, buffers, and 16 words of its own from which it goes on: these are held to tell, somewhere,
    where the instruction begins.
    """
    pc = begun + (cpu.ahead.zero_extend(32) << 1)
    cpu.ahead = Word(3, 1)  # the handler's first instruction begins
    if is_68010(cpu):
        cpu.sp = cpu.sp - 2 * OWN_WORDS
        cpu.store(cpu.sp, begun)
        cpu.sp = cpu.sp - 2 * BUFFER_WORDS
        cpu.push(address)
        cpu.push(cpu.undefined("frame status", 16))
        cpu.push(offset | LONG_FORMAT)
        _push_state(cpu, status, pc)
    else:
        _push_state(cpu, status, pc)
        cpu.push(cpu.undefined("frame instruction", 16))
        cpu.push(address)
        cpu.push(cpu.undefined("frame status", 16))


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
