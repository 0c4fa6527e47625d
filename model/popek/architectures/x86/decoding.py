"""Machine code as forms of the instruction table, with the operands that `Machine.step` takes.

Capstone (the extra `decode`) reads the bytes; this module says which form they are.  Rules where one form
has several encodings, or one encoding could be several forms:

- A form stands for every encoding that does the same.  So a short immediate or displacement that the
  processor sign-extends is the form with the long one, and a long one is the form with the short one if
  its value fits.
- Of two forms that do the same, it is the one whose text names the size that is encoded: ``8C /r`` without
  REX.W is ``MOV r32, Sreg`` though ``MOV r64, Sreg`` does the same.
- Whatever would change what the instruction does and is not in the form makes it another instruction:
  LOCK, REP, an operand or address size, a segment override of an implied operand.
- ``XCHG`` does not tell its two registers apart; ``XCHG EAX, EAX`` (90H) is ``NOP``.

Source: SDM vol. 2A, chapter 2 and section 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.code import DecodingError
from popek.kernel.instruction import Instruction

from .decoded import Decoded, MemoryReference
from .disassembly import Code, NoSuchFormError, disassembled
from .registers import DS, SEGMENT_NAMES, SS_


@attrs.frozen
class Dialect:
    """How one machine's table names what is encoded.

    Attributes:
        name: of the machine.
        registers: the names of the general registers by size in bits.
        natural: the size in bits that the table's text gives operands of the mode's own size.
        forms: the table, see `dialect`.
    """

    name: str
    registers: Mapping[int, Sequence[str]]
    natural: int
    forms: Mapping[str, Sequence[_Form]]


@attrs.frozen
class _Form:
    """A form taken apart: what it says of operand sizes, and its operands as words."""

    instruction: Instruction
    marker: str  # "o16", "o64" or ""
    tokens: tuple[str, ...]

    def operands(self) -> Iterator[tuple[str, str]]:
        """Each word and the name of its operand, "" for fixed text."""
        own = iter(self.instruction.operands)
        names = {operand.kind.name for operand in self.instruction.operands}
        for token in self.tokens:
            yield token, next(own).name if token in names else ""


_NAMES: Final = {
    "lcall": "CALL", "ljmp": "JMP", "retfq": "RETF", "pushal": "PUSHAD", "popal": "POPAD", "pushaw": "PUSHA",
    "popaw": "POPA", "wait": "FWAIT", "movabs": "MOV",
}  # fmt: skip
_CONDITIONS: Final = {"e": "Z", "ne": "NZ", "ae": "NB", "a": "NBE", "ge": "NL", "g": "NLE"}
# Forms with implied memory operands whose segment a prefix changes.
_SOURCES: Final = re.compile(r"(OUTS|MOVS|LODS|CMPS)[BWDQ]|XLATB|MONITOR")
# Forms whose implied operands an address-size prefix changes.  (SVM's always raise #UD in these machines.)
_ADDRESSED: Final = re.compile(r"(INS|OUTS|MOVS|STOS|LODS|CMPS|SCAS)[BWDQ]|XLATB|MONITOR|LOOPN?E?|JECXZ")
_IMPLIED: Final = re.compile(
    r"(INS|OUTS|MOVS|STOS|LODS|CMPS|SCAS)[BWDQ]|VMRUN|VMLOAD|VMSAVE|SKINIT|INVLPGA|AAM|AAD"
)
_CONVERSIONS: Final = {(0x98, 16): "CBW", (0x98, 32): "CWDE", (0x99, 16): "CWD", (0x99, 32): "CDQ"}
_STACK: Final = frozenset(("RET", "ENTER", "LEAVE"))  # of operand sizes the text does not show, like RETF
# Capstone drops a prefix that the manual does not define for an opcode.  F3H is part of these opcodes:
_WITH_F3: Final = ("PAUSE", "WBNOINVD", "RDPID", "VMXON", "RDFS", "WRFS", "RDGS", "WRGS")
# and 66H makes these undefined (NP in the manual's opcode column).
_NO_66: Final = frozenset(
    (
        *("XGETBV", "XSETBV", "RDPKRU", "WRPKRU", "CLAC", "STAC", "LFENCE", "MFENCE", "SFENCE", "EMMS"),
        *("XSAVE", "XSAVEC", "XSAVES", "XSAVEOPT", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR"),
        *("VMREAD", "VMWRITE", "VMPTRST", "VMFUNC"),
    )
)
# Where a register of 16 bits may be encoded as a wider one, of which nothing else is read.
_LOW_WORD: Final = frozenset(
    (("LAR", 1), ("LSL", 1), ("LLDT", 0), ("LTR", 0), ("VERR", 0), ("VERW", 0), ("LMSW", 0))
)
_MEMORY_BYTES: Final = {"m8": 1, "m16": 2, "m32": 4, "m64": 8, "m128": 16}


def dialect(
    name: str, registers: Mapping[int, Sequence[str]], natural: int, table: Mapping[str, Instruction]
) -> Dialect:
    """A machine's table, its forms by mnemonic with prefix."""
    forms: dict[str, list[_Form]] = {}
    for instruction in table.values():
        words = instruction.form.replace(",", " ").split()
        marker = words.pop(0) if words[0] in ("o16", "o64") else ""
        count = 2 if words[0].startswith("REP") else 1
        forms.setdefault(" ".join(words[:count]), []).append(_Form(instruction, marker, tuple(words[count:])))
    return Dialect(name, registers, natural, forms)


def decode_as(own: Dialect, code: bytes, bits: int, known: Sequence[int]) -> Decoded:
    """The first instruction of machine code, in a machine's own terms; `known` are its sizes of code."""
    if bits not in known:
        raise DecodingError(f"{bits}-bit code: expected {' or '.join(map(str, known))} for {own.name}")
    read = disassembled(code, bits)
    text = f"{read.found.mnemonic} {read.found.op_str}".strip()
    for natural in (False, True) if bits < own.natural else (False,):
        for form in own.forms.get(_name(own, read, natural), ()):
            matched = _matched(own, form, read, natural)
            if matched is not None:
                parts, references = matched
                parts["operand length"] = read.length
                return Decoded(form.instruction, read.length, text, parts, references)
    shown = code[: read.length].hex(" ")
    message = f"{shown} ({text}): the machine {own.name} has no such instruction form"
    raise NoSuchFormError(message, text, read.length)


def _name(own: Dialect, read: Code, natural: bool) -> str:
    """The mnemonic with its prefix as the table spells it."""
    mnemonic: str = read.found.mnemonic
    # Capstone calls these by 32-bit names in 16-bit code.
    if (conversion := _CONVERSIONS.get((read.raw[read.at], read.size))) is not None:
        return conversion
    mnemonic = mnemonic.removeprefix("notrack ")
    if mnemonic in _NAMES:
        return _NAMES[mnemonic]
    for start in ("cmov", "set", "j"):
        if mnemonic.startswith(start) and mnemonic[len(start) :] in _CONDITIONS:
            return start.upper() + _CONDITIONS[mnemonic[len(start) :]]
    if natural and mnemonic in ("pushfd", "popfd"):
        return f"{mnemonic[:-1].upper()}Q"
    return mnemonic.upper()


def _matched(
    own: Dialect, form: _Form, read: Code, natural: bool
) -> tuple[dict[str, int], dict[str, MemoryReference]] | None:
    """The parts of the operands if the code is of this form, else None."""
    base = form.instruction.form.split(",")[0].split()
    mnemonic = next(word for word in base if not word.startswith(("o16", "o64", "REP")))
    if not _same_size(form, mnemonic, read) or not _same_surroundings(form, mnemonic, read):
        return None
    parts: dict[str, int] = {}
    references: dict[str, MemoryReference] = {}
    tokens = list(form.operands())
    if tokens and tokens[-1][0] == "seg":
        parts["operand seg"] = DS if read.segment is None else read.segment
        return parts, references
    if not tokens and _IMPLIED.fullmatch(mnemonic):
        return parts, references
    if mnemonic in ("UD0", "UD1"):
        return _of_modrm(tokens, read)
    if tokens and tokens[0][0].startswith("ptr"):
        return _of_pointer(tokens[0][0], read)
    if len(tokens) != len(read.found.operands):
        return None
    for place, ((token, name), operand) in enumerate(zip(tokens, read.found.operands, strict=True)):
        if not name:
            if not _is_fixed(token, operand, read):
                return None
        elif operand.type == 3:
            if not _fits_memory(token, operand, read):
                return None
            _put_memory(own, f"operand {name}", operand, read, parts, references)
        else:
            number = _number(own, token, place, operand, read, natural, mnemonic)
            if number is None:
                return None
            parts[f"operand {name}"] = number
    return parts, references


def _same_size(form: _Form, mnemonic: str, read: Code) -> bool:
    """Whether the operand size is the form's, where its text shows it by a marker or not at all."""
    if form.marker:
        return read.size == int(form.marker[1:])
    if mnemonic == "RETF":
        return read.size == 32
    shown = form.tokens[-1] if form.tokens else ""
    hidden = (
        mnemonic in _STACK
        or shown.startswith("rel")
        or (mnemonic in ("PUSH", "POP") and (shown.startswith("imm") or shown.lower() in SEGMENT_NAMES))
        or shown == "m16&32"
    )
    return not hidden or read.size != 16


def _same_surroundings(form: _Form, mnemonic: str, read: Code) -> bool:
    """Whether prefixes leave implied operands as the form has them."""
    prefixes = read.raw[: read.at]
    repeated = " " in read.found.mnemonic or mnemonic.startswith(_WITH_F3)
    if not repeated and (0xF2 in prefixes or 0xF3 in prefixes):
        return False
    if mnemonic in _NO_66 and 0x66 in prefixes:
        return False
    if _ADDRESSED.fullmatch(mnemonic) and read.found.addr_size * 8 != max(read.bits, 32):
        return False
    plain = read.segment is None or read.segment == DS
    return plain or not _SOURCES.fullmatch(mnemonic) or "seg" in form.tokens


def _of_modrm(
    tokens: Sequence[tuple[str, str]], read: Code
) -> tuple[dict[str, int], dict[str, MemoryReference]] | None:
    """The two registers of UD0 and UD1."""
    if len(read.raw) < read.length:
        raise DecodingError(f"{read.raw.hex(' ')}: begins with no whole instruction of {read.bits}-bit code")
    modrm = read.raw[read.length - 1]
    if modrm < 0xC0 or read.size != 32:
        return None
    numbers = (modrm >> 3 & 7, modrm & 7)
    return {f"operand {name}": n for (_, name), n in zip(tokens, numbers, strict=True)}, {}


def _of_pointer(token: str, read: Code) -> tuple[dict[str, int], dict[str, MemoryReference]] | None:
    """The selector and offset of a direct far transfer."""
    if read.raw[read.at] not in (0x9A, 0xEA) or token != f"ptr16:{min(read.size, 32)}":
        return None
    body = read.raw[read.at + 1 : read.length]
    offset, selector = int.from_bytes(body[:-2], "little"), int.from_bytes(body[-2:], "little")
    return {f"operand {token}.selector": selector, f"operand {token}.offset": offset}, {}


def _is_fixed(token: str, operand: Any, read: Code) -> bool:
    """Whether an operand is what a form's fixed word says."""
    if operand.type == 1:
        return bool(read.found.reg_name(operand.reg) == token.lower())
    return operand.type == 2 and token.isdigit() and operand.imm == int(token)


def _number(
    own: Dialect, token: str, place: int, operand: Any, read: Code, natural: bool, mnemonic: str
) -> int | None:
    """A register's or an immediate's number, None if it is no such operand."""
    if operand.type == 2:
        return _immediate(token, place, operand, read) if token.startswith(("imm", "rel")) else None
    name = read.found.reg_name(operand.reg)
    if token == "Sreg":
        return read.sreg if name in SEGMENT_NAMES else None
    size = _register_size(token, operand, natural, own)
    if token == "r16" and ((mnemonic, place) in _LOW_WORD or (read.sreg is not None and place == 1)):
        size = 8 * operand.size
    names = own.registers.get(size, ()) if token.startswith("r") and not token.startswith("rel") else ()
    return names.index(name) if name in names else None


def _register_size(token: str, operand: Any, natural: bool, own: Dialect) -> int:
    """The size in bits that a form's word for a register asks for."""
    if not token[1:].isdigit():
        return 0
    wanted = int(token[1:])
    return 32 if natural and wanted == own.natural and operand.size == 4 else wanted


def _immediate(token: str, place: int, operand: Any, read: Code) -> int | None:
    """An encoded number as one of the form's width, None if it does not fit."""
    encoding, width = read.found.encoding, int(token[3:])
    if read.raw[read.at] == 0xC8:  # ENTER has two
        size, value = ((2, 1)[place], operand.imm)
    elif not encoding.imm_size:
        size, value = 1, operand.imm  # a shift by one
    else:
        size, start = encoding.imm_size, encoding.imm_offset
        value = int.from_bytes(read.raw[start : start + size], "little", signed=True)
    if 8 * size != width and not -(1 << width - 1) <= value < 1 << width - 1:
        return None
    return int(value & (1 << width) - 1)


def _fits_memory(token: str, operand: Any, read: Code) -> bool:
    """Whether a memory operand is of the form's kind."""
    if not token.startswith("m"):
        return False
    if token in _MEMORY_BYTES:
        return not read.far and bool(operand.size == _MEMORY_BYTES[token])
    if ":" in token:
        near = read.raw[read.at] == 0xFF and not read.far
        return not near and int(token.partition(":")[2]) == read.size
    return True


def _put_memory(
    own: Dialect,
    name: str,
    operand: Any,
    read: Code,
    parts: dict[str, int],
    references: dict[str, MemoryReference],
) -> None:
    """Add the parts of a memory operand."""
    width = 8 * read.found.addr_size
    memory = operand.mem
    base, index = (read.found.reg_name(number) if number else "" for number in (memory.base, memory.index))
    names = own.registers[width]
    reference = MemoryReference(
        width,
        names.index(base) if base in names else None,
        names.index(index) if index in names else None,
        memory.scale,
        memory.disp & (1 << width) - 1,
        base in ("eip", "rip"),
    )
    usual = SS_ if reference.base in (4, 5) else DS
    parts[f"{name}.segment"] = usual if read.segment is None else read.segment
    references[f"{name}.offset"] = reference
    if reference.fixed:
        parts[f"{name}.offset"] = reference.displacement
