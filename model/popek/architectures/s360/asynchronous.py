"""External and input/output interruptions, which come between two instructions (GA22-7000, "Interruptions")."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from popek.kernel.interruption import Given, Interruption
from popek.kernel.words import Word, concat, ite

from .state import CSW, Cpu

C = TypeVar("C", bound=Cpu)

EXTERNAL_OLD, IO_OLD = 24, 56  # the new PSWs are 64 bytes further on


def _taken(state: C, old: int, identification: int, code: Word) -> C:
    """The old PSW is stored, with the code in it or at its own place, and the new one is loaded."""
    cpu = state.copy()
    place = cpu.real(identification, 2)
    cpu.write(place, ite(cpu.extended, code, cpu.read(place)))
    cpu.write(cpu.real(old, 8), cpu.psw_word(code))
    cpu.ilc = Word(2, 0)
    cpu.load_psw(cpu.read(cpu.real(old + 64, 8)))
    return cpu


def external(
    name: str, code: Word, enabled: Callable[[C], Word], *, identification: int, source: str
) -> Interruption[C]:
    """An external interruption with this code (16 bits), which `identification` holds in the EC or extended mode."""
    return Interruption(
        name,
        lambda state, given: enabled(state),
        lambda state, given: _taken(state, EXTERNAL_OLD, identification, code),
        source=source,
    )


def input_output(
    enabled: Callable[[C, Word], Word], *, identification: int, source: str, channels: int = 32
) -> Interruption[C]:
    """A device's interruption; `enabled(state, channel)` gives what the masks say of a channel (5 bits)."""

    def enter(state: C, given: Given) -> C:
        cpu = state.copy()
        cpu.write(cpu.real(CSW, 8), given["csw"])
        return _taken(cpu, IO_OLD, identification, concat(Word(3, 0), given["channel"], given["device"]))

    return Interruption(
        "input/output interruption",
        lambda state, given: enabled(state, given["channel"]),
        enter,
        {"channel": 5, "device": 8, "csw": 64},
        may=lambda given: given["channel"] <= channels - 1,
        source=source,
    )
