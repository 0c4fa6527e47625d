"""One 68000 or 68010 instruction on Musashi, in this process, from a complete given state.

`machine68k` has 1 MiB of storage and no unit before it, and neither bus nor address errors nor the trace trap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from popek.emulators.differential import EmulatorError

KIB: Final = 1024
CELLS: Final = KIB * KIB // 2
_GENERAL: Final = (*(f"D{n}" for n in range(8)), *(f"A{n}" for n in range(7)))
REGISTERS: Final = (*(name.lower() for name in _GENERAL), "pc", "sr", "usp", "ssp", "vbr", "sfc", "dfc")
"""What a result names; VBR, SFC and DFC of a 68010 alone."""


class MusashiError(EmulatorError):
    """Musashi cannot be run; the message says what is missing."""


@attrs.frozen
class M68kResult:
    """The registers, and the cells that were written, by their address in words."""

    registers: Mapping[str, int]
    cells: Mapping[int, int]


def pattern(cell: int) -> int:
    """What storage holds before anything is put there: 16 bits."""
    return (cell * 0x9E35 ^ cell >> 3 ^ 0x5A3C) & 0xFFFF


def processor(model: int) -> Musashi:
    """The emulator as a model (0: 68000, 1: 68010); made anew where the last one was the other.

    Raises:
        MusashiError: the package is missing.
    """
    if not _LAST or _LAST[0].model != model:
        while _LAST:
            _LAST.pop().close()
        _LAST.append(Musashi(model))
    return _LAST[0]


class Musashi:
    """Musashi as one of the two models; there can be but one at a time.

    Raises:
        MusashiError: the package is missing.
    """

    def __init__(self, model: int) -> None:
        try:
            from machine68k import CPUType, Machine, Register
        except ImportError:
            raise MusashiError(
                "no Musashi: install the Python package `machine68k`, which needs a C compiler"
            ) from None
        self.model = model
        self._machine: Any = Machine((CPUType.M68000, CPUType.M68010)[model], KIB)
        self._cpu, self._memory = self._machine.cpu, self._machine.mem
        self._register: Mapping[str, Any] = {
            name: getattr(Register, name.upper()) for name in (*REGISTERS[:17], "vbr", "sfc", "dfc")
        }
        self._stack = Register.A7  # of the state that is current
        self._later = ("vbr", "sfc", "dfc") if model else ()
        content = b"".join(pattern(cell).to_bytes(2, "big") for cell in range(CELLS))
        self._memory.w_block(0, content)
        self._written: set[int] = set()
        self._memory.set_trace_func(self._note)
        self._memory.set_trace_mode(True)

    def close(self) -> None:
        """Make room for another."""
        self._machine.cleanup()

    def _note(self, kind: str, size: int, address: int, value: int) -> None:
        if kind == "W":
            first = address >> 1
            self._written.update(range(first, first + max(1, size)))

    def run(self, registers: Mapping[str, int], cells: Mapping[int, int]) -> M68kResult:
        """One instruction, with the exception that it takes.

        Args:
            registers: as `REGISTERS` names them.
            cells: what storage holds where it is not the pattern: the instruction among it.
        """
        cpu, memory = self._cpu, self._memory
        cpu.pulse_reset()
        self._machine.execute(1)  # the cycles of the reset; it ends a STOP, too
        for cell, value in cells.items():
            memory.w16(cell << 1, value)
        cpu.w_sr(registers["sr"])
        supervisor = registers["sr"] >> 13 & 1
        cpu.w_reg(self._stack, registers["ssp" if supervisor else "usp"])
        (cpu.w_usp if supervisor else cpu.w_isp)(registers["usp" if supervisor else "ssp"])
        for name in (*REGISTERS[:15], *self._later):
            cpu.w_reg(self._register[name], registers[name])
        cpu.w_pc(registers["pc"])
        self._written.clear()
        self._machine.execute(1)
        after = {name: cpu.r_reg(self._register[name]) for name in (*REGISTERS[:15], *self._later)}
        after |= {"pc": cpu.r_pc(), "sr": cpu.r_sr()}
        now, stack = after["sr"] >> 13 & 1, cpu.r_reg(self._stack)
        after |= {"ssp": stack, "usp": cpu.r_usp()} if now else {"usp": stack, "ssp": cpu.r_isp()}
        written = {cell: memory.r16(cell << 1) for cell in sorted(self._written) if cell < CELLS}
        for cell in {*cells, *written}:
            memory.w16(cell << 1, pattern(cell))
        return M68kResult(after, written)


_LAST: Final[list[Musashi]] = []


def words_at(address: int, words: Sequence[int]) -> dict[int, int]:
    """Cells that hold words from an even address on."""
    return {(address >> 1) + place: word for place, word in enumerate(words)}
