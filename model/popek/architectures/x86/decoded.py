"""What machine code decodes to: a form of the instruction table with its operands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from popek.kernel.code import DecodingError
from popek.kernel.instruction import Instruction
from popek.kernel.words import Word


@attrs.frozen
class MemoryReference:
    """The offset of a memory operand as it is encoded.

    Attributes:
        width: of addresses, in bits (16, 32 or 64).
        base: number of the general register, None without.
        index: likewise.
        scale: what the index is multiplied by.
        displacement: as a number of `width` bits.
        relative: to the next instruction (RIP-relative).
    """

    width: int
    base: int | None
    index: int | None
    scale: int
    displacement: int
    relative: bool = False

    @property
    def fixed(self) -> bool:
        """Whether the offset depends on no register."""
        return self.base is None and self.index is None and not self.relative

    def offset(self, state: Any, length: int) -> Word:
        """The offset in a state that starts an instruction of so many bytes (`width` bits)."""
        total = Word(self.width, self.displacement)
        if self.base is not None:
            total = total + state.gpr[self.base].resize(self.width)
        if self.index is not None:
            total = total + state.gpr[self.index].resize(self.width) * self.scale
        if self.relative:
            total = total + (state.rip + length).resize(self.width)
        return total


@attrs.frozen
class Decoded:
    """One instruction of machine code.

    Attributes:
        instruction: the form in the machine's table.
        length: in bytes.
        text: the instruction as Capstone spells it.
        parts: the number of each part by its name as a symbol (``operand r32``), without an offset that
            depends on registers.
        references: the encoded offset by its part's name (``operand m.offset``).
    """

    instruction: Instruction
    length: int
    text: str
    parts: Mapping[str, int]
    references: Mapping[str, MemoryReference]

    @property
    def form(self) -> str:
        """As the manual writes it: the key of the machine's table."""
        return self.instruction.form

    def to_json(self) -> dict[str, Any]:
        """For ``"decoded"`` in the output of `popek explain --bytes`."""
        encoded = {name: attrs.asdict(reference) for name, reference in self.references.items()}
        return {
            "form": self.form,
            "text": self.text,
            "length": self.length,
            "operands": dict(self.parts),
            "references": {name: one for name, one in encoded.items() if name not in self.parts},
        }

    def operands(self, state: Any = None) -> dict[str, Word]:
        """Every operand and implicit input, as `Machine.step` takes them.

        Args:
            state: the one in which the instruction starts; needed if an offset depends on registers.

        Raises:
            DecodingError: it is needed and missing.
        """
        result = {}
        for name, width in self.instruction.widths.items():
            if name in self.parts:
                result[name] = Word(width, self.parts[name])
            elif state is None:
                raise DecodingError(f"{self.text}: the offset depends on registers; expected a state")
            else:
                result[name] = self.references[name].offset(state, self.length).zero_extend(width)
        return result
