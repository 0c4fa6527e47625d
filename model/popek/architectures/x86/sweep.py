"""Whole programs read by linear sweep: Capstone finds where instructions end, `decoding` which forms they are.

Source: SDM vol. 2A, chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from popek.kernel.code import CodeInstruction, DecodingError, MachineCode

from .decoded import Decoded
from .disassembly import NoSuchFormError, plain_reader

LONGEST = 15
AHEAD = 4096  # bytes that Capstone is given at once
MOST_KNOWN = 100_000  # instructions that are remembered


def code_of(
    machine: str,
    modes: tuple[int, ...],
    elf_machines: tuple[str, ...],
    pe_machines: tuple[str, ...],
    decode: Callable[[bytes, int], Decoded],
) -> MachineCode:
    """The reader of a machine whose single instructions `decode` reads."""

    def sweep(code: bytes, start: int, end: int, mode: int) -> Iterator[CodeInstruction]:
        reader = plain_reader(mode)
        known: dict[bytes, CodeInstruction] = {}
        at = start
        while at < end:
            begin = at
            for _, size, _, _ in reader.disasm_lite(code[at : min(end, at + AHEAD)], 0):
                raw = code[at : at + size]
                one = known.get(raw)
                if one is None:
                    one = _read(decode, code[at : at + LONGEST], mode)
                    if one.size == size:
                        if len(known) >= MOST_KNOWN:
                            known.clear()
                        known[raw] = one
                yield CodeInstruction(at, one.size, one.text, one.form)
                at += one.size
                if one.size != size or at >= end:
                    break  # where Capstone alone would go on elsewhere
            if at == begin:  # no instruction for Capstone alone, or one that goes on behind the end
                one = _read(decode, code[at : at + LONGEST], mode)
                yield CodeInstruction(at, one.size, one.text, one.form)
                at += one.size

    return MachineCode(machine, modes, elf_machines, pe_machines, decode, sweep)


def _read(decode: Callable[[bytes, int], Decoded], code: bytes, mode: int) -> CodeInstruction:
    try:
        found = decode(code, mode)
    except NoSuchFormError as error:
        return CodeInstruction(0, min(error.length, len(code)), error.text, "")
    except DecodingError:
        return CodeInstruction(0, 1, "", "")
    return CodeInstruction(0, found.length, found.text, found.form)
