"""A processor of Unicorn, the processor of QEMU without its devices, for comparisons in every mode."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterable
from typing import Any, Final

from popek.emulators.differential import EmulatorError

SELECTORS: Final = ("cs", "ds", "es", "fs", "gs", "ss")
SCRATCH: Final = 0x1000000
"""Where the code, the stack and the pointers lie that bring the processor to a case's state."""
_INVALID_OPCODE: Final = 6
_STACK: Final = SCRATCH + 0x4000


class UnicornError(EmulatorError):
    """Unicorn is missing."""


class UnicornProcessor:
    """One processor of Unicorn.

    Args:
        bits: of its mode: 32 or 64.
        names: the registers that are read or written, by Unicorn's names in lower case.

    Raises:
        UnicornError: Unicorn is missing.
    """

    def __init__(self, bits: int, names: Iterable[str]) -> None:
        # Here and not above: only these comparisons need Unicorn.
        try:
            unicorn: Any = importlib.import_module("unicorn")
        except ImportError as error:
            raise UnicornError("the Python package unicorn was not found; install it") from error
        constants = importlib.import_module("unicorn.x86_const")
        self.unicorn = unicorn
        self.mode = {32: unicorn.UC_MODE_32, 64: unicorn.UC_MODE_64}[bits]
        self.numbers = {name: getattr(constants, f"UC_X86_REG_{name.upper()}") for name in names}
        self.vector: int | None = None

    def start(self, memory: int, scratch: int) -> None:
        """A fresh engine with so many bytes of memory at 0, and of scratch memory."""
        self.engine: Any = self.unicorn.Uc(self.unicorn.UC_ARCH_X86, self.mode)
        self.engine.mem_map(0, memory)
        self.engine.mem_map(SCRATCH, scratch)
        self.engine.hook_add(self.unicorn.UC_HOOK_INTR, self._interrupted)

    def _interrupted(self, engine: Any, vector: int, data: object) -> None:
        self.vector = vector
        engine.emu_stop()

    def write(self, name: str, value: object) -> None:
        """A register."""
        self.engine.reg_write(self.numbers[name], value)

    def read(self, name: str) -> int:
        """A register."""
        return int(self.engine.reg_read(self.numbers[name]))

    def watched(self, watch: Iterable[tuple[int, int]]) -> tuple[bytes, ...]:
        """Memory, by (linear address, length)."""
        return tuple(bytes(self.engine.mem_read(address, length)) for address, length in watch)

    def go(self, at: int, count: int) -> int | None:
        """Run instructions; the vector that stopped them, if one did, and -1 for memory that is not there."""
        self.vector = None
        try:
            self.engine.emu_start(at, 0, count=count)
        except self.unicorn.UcError as error:
            return _INVALID_OPCODE if error.errno == self.unicorn.UC_ERR_INSN_INVALID else -1
        return self.vector

    def frame_for_iret(self, size: str, ip: int, cs: int, sp: int, ss: int) -> int:
        """Put the frame of an IRET on the scratch stack, its items as `struct` has them; where it is."""
        self.engine.mem_write(_STACK, struct.pack(f"<5{size}", ip, cs, 2, sp, ss))
        return _STACK
