"""Machine code: what an architecture declares so that whole programs can be read.

A package that can read the code of its machine has `CODE`, a mapping from the machine's name to a maker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import attrs

from popek.errors import PopekError


class DecodingError(PopekError):
    """Bytes that are no instruction, or none of the machine's; or a library is missing.  One line."""


class DecodedInstruction(Protocol):
    """One instruction of machine code, as far as commands look at it."""

    @property
    def form(self) -> str:
        """The key of the machine's table."""

    @property
    def text(self) -> str:
        """As the disassembler spells it."""

    @property
    def parts(self) -> Mapping[str, int]:
        """The number of each operand part by its name as a symbol, without what depends on registers."""

    @property
    def length(self) -> int:
        """In bytes."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""


@attrs.frozen
class CodeInstruction:
    """One instruction of a program, or bytes that are none.

    Attributes:
        offset: where it begins, from the start of what was read.
        size: in bytes.
        text: as the disassembler spells it; empty where the bytes are no instruction.
        form: in the machine's table; empty where the machine has no such form.
    """

    offset: int
    size: int
    text: str
    form: str


@attrs.frozen
class MachineCode:
    """How the code of one machine is read.

    Attributes:
        machine: its name.
        modes: the sizes of code in bits, the usual one first.
        elf_machines: the names of ELF's `e_machine` whose files hold it.
        pe_machines: the names of PE's `Machine` whose files hold it.
        decode: `decode(code, mode)` gives the first instruction of some bytes; it raises `DecodingError`.
        sweep: `sweep(code, start, end, mode)` gives every instruction that begins from `start` up to `end`, one after
            the other, and a piece of size 1 without text for each byte where none begins.
    """

    machine: str
    modes: tuple[int, ...]
    elf_machines: tuple[str, ...]
    pe_machines: tuple[str, ...]
    decode: Callable[[bytes, int], DecodedInstruction] = attrs.field(repr=False)
    sweep: Callable[[bytes, int, int, int], Iterator[CodeInstruction]] = attrs.field(repr=False)
