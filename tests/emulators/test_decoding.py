"""Machine code decodes to the form and the operands it was assembled from.

nasm writes the code, so neither of the two ways is checked by itself.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import attrs
import pytest

from popek.architectures.ia32.decoding import decode as decode_ia32
from popek.architectures.ia32.state import Ia32
from popek.architectures.x86 import decoding, disassembly
from popek.architectures.x86.decoded import Decoded
from popek.architectures.x86_64.decoding import decode as decode_x86_64
from popek.architectures.x86_64.state import X64
from popek.cli.errors import UserError
from popek.cli.explain import explain
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.ia32 import assembly as ia32_assembly
from popek.emulators.x86_64 import assembly as x64_assembly
from popek.emulators.x86_64.compare import exists_in_compatibility_mode
from popek.kernel.code import DecodingError
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next
from popek.kernel.words import Word
from popek.machines import machine

DRAWS = 3
CODE = (("ia32", 16), ("ia32", 32), ("x86-64", 32), ("x86-64", 64))
DECODERS: dict[str, Callable[[bytes, int], Decoded]] = {"ia32": decode_ia32, "x86-64": decode_x86_64}
# 64-bit mode uses their opcodes for VEX and EVEX prefixes: no assembler can write them.
NOT_IN_LONG_MODE = {"LDS r32, m16:32", "LES r32, m16:32", "BOUND r32, m64"}
# Forms that nasm writes as another one that does the same.
WRITTEN_AS = {"SLDT r64": "SLDT r32", "MOV r64, Sreg": "MOV r32, Sreg"}
# Forms whose two operands may be exchanged, so that the encoding does not tell which is first.
SYMMETRIC = {"XCHG r32, r32", "XCHG r64, r64"}
WHERE = """
A new form is also named where its text does not say all.  In popek/architectures/x86/decoding.py: _NAMES if Capstone
spells the mnemonic otherwise; _IMPLIED and _ADDRESSED if it refers to memory without an operand, _SOURCES if a prefix
changes the segment; _STACK if its size is not in the text; _WITH_F3 and _NO_66 if a prefix is part of the opcode or
makes it undefined; _LOW_WORD if a wider register is encoded.  In popek/emulators/ia32/assembly.py and
popek/emulators/x86_64/assembly.py: _RENAMED, _BYTES or _SIZED if nasm spells it otherwise or not at all."""


@attrs.frozen
class Assembled:
    """One instruction that nasm has written."""

    name: str
    bits: int
    form: str
    operands: Mapping[str, int]
    code: bytes

    @property
    def expected(self) -> dict[str, int]:
        return {**self.operands, "operand length": len(self.code)}

    def decoded(self) -> Decoded:
        return DECODERS[self.name](self.code, self.bits)


def draw(instruction: Instruction, name: str, bits: int, rng: random.Random) -> dict[str, int]:
    """Operands that can be encoded, by the parts' names."""
    numbers = {}
    for operand in instruction.operands:
        kind = operand.kind.name
        for part, (symbol, width) in zip(operand.kind.parts, operand.part_names(), strict=True):
            if part == "segment" or kind == "seg":
                numbers[symbol] = rng.choice((3, 4, 5) if bits == 64 else range(6))
            elif part == "offset" and width == 64:
                numbers[symbol] = rng.getrandbits(31 if bits == 64 else 32)
            elif re.fullmatch(r"r\d+", kind):
                without_rex = 4 if (name, kind) == ("x86-64", "r8") else 8
                numbers[symbol] = rng.randrange(16 if bits == 64 else without_rex)
            else:
                numbers[symbol] = rng.getrandbits(width)
    return numbers


def can_be_written(instruction: Instruction, name: str, bits: int) -> bool:
    if name == "ia32":
        return True
    if bits == 64:
        return instruction.form not in NOT_IN_LONG_MODE
    return exists_in_compatibility_mode(instruction)


def assemble(name: str, bits: int, wanted: list[tuple[Instruction, dict[str, int]]]) -> Iterator[Assembled]:
    """Each form with its operands as machine code."""
    if name == "ia32":
        texts = [ia32_assembly.assembly_text(one, numbers, bits) for one, numbers in wanted]
        codes = list(map(ia32_assembly.assemble_all(texts).__getitem__, texts))
    else:
        keys = [(bits == 64, x64_assembly.assembly_text(i, n, long=bits == 64)) for i, n in wanted]
        codes = list(map(x64_assembly.assemble_all(keys).__getitem__, keys))
    for (one, numbers), code in zip(wanted, codes, strict=True):
        yield Assembled(name, bits, one.form, numbers, code)


@cache
def assembled(name: str, bits: int) -> tuple[Assembled, ...]:
    """Every form that code of this size can have, several times."""
    rng = random.Random(f"{name} {bits}")
    wanted = [
        (instruction, draw(instruction, name, bits, rng))
        for instruction in machine(name).instructions.values()
        if can_be_written(instruction, name, bits)
        for _ in range(DRAWS)
    ]
    return tuple(assemble(name, bits, wanted))


def complaint(one: Assembled) -> str:
    """Why the decoded form or operands are not the assembled ones; empty if they are."""
    try:
        found = one.decoded()
    except DecodingError as error:
        return f"{one.form}: {error}"
    numbers = {name: int(word) for name, word in found.operands().items()}
    expected = one.expected
    if one.form in SYMMETRIC and sorted(numbers.values()) == sorted(expected.values()):
        return ""
    if found.form == "NOP" and one.form in SYMMETRIC and not any(one.operands.values()):
        return ""  # XCHG EAX, EAX
    if WRITTEN_AS.get(one.form) == found.form and list(numbers.values()) == list(expected.values()):
        return ""
    same = found.form == one.form and numbers == expected
    return "" if same else f"{one.code.hex()}: {one.form} {expected}, not {found.form} {numbers}"


def complaints(name: str, bits: int) -> list[str]:
    try:
        return [text + WHERE for one in assembled(name, bits) if (text := complaint(one))]
    except BochsError as error:
        return [f"{error}{WHERE}"]


@pytest.mark.emulator
@pytest.mark.parametrize(("name", "bits"), CODE)
def test_every_form_decodes_to_itself(name: str, bits: int) -> None:
    assert complaints(name, bits) == []


@pytest.mark.emulator
@pytest.mark.parametrize("name", ["ia32", "x86-64"])
def test_no_form_is_left_out(name: str) -> None:
    asked = {one.form for known, bits in CODE if known == name for one in assembled(known, bits)}
    assert asked == set(machine(name).instructions)


@pytest.mark.emulator
@pytest.mark.parametrize("long", [True, False], ids=["64-bit mode", "compatibility mode"])
def test_forms_that_count_as_the_same_do_the_same(long: bool) -> None:
    """What `WRITTEN_AS` and `SYMMETRIC` allow is a fact about the semantics."""
    known, rng = machine("x86-64"), random.Random(5)
    compared = 0
    for one in assembled("x86-64", 64 if long else 32):
        if one.form not in WRITTEN_AS and one.form not in SYMMETRIC:
            continue
        start = X64.reset(cs__rights__l=int(long), fs__selector=0x33, ldtr__selector=0x48).with_changes(
            {
                leaf.name: rng.getrandbits(64)
                for leaf in X64.leaves
                if leaf.name in x64_assembly.REGISTER_NAMES[64]
            }
        )
        found = one.decoded()
        other = {name: Word(len_of(known, one.form, name), n) for name, n in one.expected.items()}
        ends = [
            known.step(found.instruction, start, found.operands()),
            known.step(known.instructions[one.form], start, other),
        ]
        assert type(ends[0]) is type(ends[1])
        if isinstance(ends[0], Next) and isinstance(ends[1], Next):
            states = [end.state for end in ends]
            assert [int(states[0][leaf.name]) for leaf in X64.leaves] == [
                int(states[1][leaf.name]) for leaf in X64.leaves
            ], one
            compared += 1
    assert compared >= DRAWS


def len_of(known: Any, form: str, name: str) -> int:
    """The width of a part."""
    return next(w for o in known.instructions[form].inputs for n, w in o.part_names() if n == name)


MUTATIONS: tuple[tuple[object, str, object], ...] = (
    (disassembly, "_OVERRIDES", {**disassembly._OVERRIDES, 0x64: 5, 0x65: 4}),
    (disassembly, "_NOT_IN_64_BIT_MODE", b""),
    (disassembly, "_has_mandatory_prefix", lambda opcode: False),
    (decoding, "_LOW_WORD", frozenset()),
    (decoding, "_CONDITIONS", {**decoding._CONDITIONS, "ge": "NLE", "g": "NL"}),
    (decoding, "_CONVERSIONS", {}),
    (decoding, "_same_size", lambda form, mnemonic, read: True),
    (decoding, "_WITH_F3", ()),
)


@pytest.mark.emulator
@pytest.mark.parametrize(("module", "name", "wrong"), MUTATIONS, ids=[name for _, name, _ in MUTATIONS])
def test_a_wrong_decoder_is_found_out(
    module: object, name: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    assert any(complaints(*code) for code in CODE)


# Written by hand from SDM vol. 2: encodings that the assemblers above do not produce.
BY_HAND = (
    # code, bits, form, numbers but the length; offsets with EAX=1 ECX=2 EDX=4 EBX=8 ESP=16 EBP=32 ESI=64 EDI=128
    ("8d4c2404", 32, "LEA r32, m", {"r32": 1, "m.segment": 2, "m.offset": 20}),
    ("8d4c9d04", 32, "LEA r32, m", {"r32": 1, "m.segment": 2, "m.offset": 36 + 4 * 8}),
    ("8b0cc7", 32, "MOV r32, m32", {"r32": 1, "m32.segment": 3, "m32.offset": 128 + 8}),
    ("648b45fc", 32, "MOV r32, m32", {"r32": 0, "m32.segment": 4, "m32.offset": 28}),
    ("678b4afe", 32, "MOV r32, m32", {"r32": 1, "m32.segment": 2, "m32.offset": 32 + 64 - 2}),
    ("8b40f0", 16, "MOV r16, m16", {"r16": 0, "m16.segment": 3, "m16.offset": (8 + 64 - 16) & 0xFFFF}),
    ("8b47f0", 16, "MOV r16, m16", {"r16": 0, "m16.segment": 3, "m16.offset": 0xFFF8}),
    ("a134120000", 32, "MOV r32, m32", {"r32": 0, "m32.segment": 3, "m32.offset": 0x1234}),
    ("8bcb", 32, "MOV r32, r32", {"r32": 1, "r32 2": 3}),
    ("89d9", 32, "MOV r32, r32", {"r32": 1, "r32 2": 3}),
    ("83c3f0", 32, "ADD r32, imm32", {"r32": 3, "imm32": 0xFFFFFFF0}),
    ("d1e3", 32, "SHL r32, imm8", {"r32": 3, "imm8": 1}),
    ("c1e3ff", 32, "SHL r32, imm8", {"r32": 3, "imm8": 0xFF}),
    ("68f0ffffff", 32, "PUSH imm8", {"imm8": 0xF0}),
    ("c2f0f0", 32, "RET imm16", {"imm16": 0xF0F0}),
    ("ebfe", 32, "JMP rel32", {"rel32": 0xFFFFFFFE}),
    ("0f84f0ffffff", 32, "JZ rel8", {"rel8": 0xF0}),
    ("0f2003", 32, "MOV r32, CR0", {"r32": 3}),  # mod is ignored
    ("8ec8", 32, "MOV Sreg, r16", {"Sreg": 1, "r16": 0}),  # to CS: #UD
    ("3eff10", 32, None, {}),  # CALL m32, which the machine lacks
    ("a4", 32, "MOVSB seg", {"seg": 3}),
    ("90", 32, "NOP", {}),
    ("8b0510000000", 64, "MOV r32, m32", {"r32": 0, "m32.segment": 3, "m32.offset": 0x1000 + 6 + 16}),
    ("678b44fcfc", 64, "MOV r32, m32", {"r32": 0, "m32.segment": 2, "m32.offset": 16 + 8 * 128 - 4}),
    ("488b48f8", 64, "MOV r64, m64", {"r64": 1, "m64.segment": 3, "m64.offset": (1 << 64) - 7}),
    ("678b48f8", 64, "MOV r32, m32", {"r32": 1, "m32.segment": 3, "m32.offset": (1 << 32) - 7}),
    ("48c7c3f0ffffff", 64, "MOV r64, imm64", {"r64": 3, "imm64": (1 << 64) - 16}),
    ("6af0", 64, "PUSH imm32", {"imm32": 0xFFFFFFF0}),
    ("4888e1", 64, "MOV r8, r8", {"r8": 1, "r8 2": 4}),  # SPL
    ("88e1", 64, None, {}),  # AH
    ("2ea4", 64, "MOVSB", {}),  # CS is no override there
    ("64a4", 64, None, {}),
    ("4806", 64, "PUSH ES", {}),
    ("60", 64, "PUSHAD", {}),
)


@pytest.mark.parametrize(
    ("code", "bits", "form", "numbers"), BY_HAND, ids=[f"{b}: {c}" for c, b, _, _ in BY_HAND]
)
def test_encodings_mean_what_the_manual_says(
    code: str, bits: int, form: str | None, numbers: dict[str, int]
) -> None:
    raw = bytes.fromhex(code)
    decode = decode_x86_64 if bits == 64 else decode_ia32
    if form is None:
        with pytest.raises(DecodingError, match="has no such instruction form"):
            decode(raw, bits)
        return
    names = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
    general = {("r" if bits == 64 else "e") + name: 1 << i for i, name in enumerate(names)}
    state = X64.reset(**general, rip=0x1000) if bits == 64 else Ia32.reset(**general, eip=0x1000)
    found = decode(raw + b"\xcc", bits)  # what follows does not matter
    expected = {f"operand {name}": number for name, number in numbers.items()}
    assert found.form == form
    assert {name: int(word) for name, word in found.operands(state).items()} == {
        **expected,
        "operand length": len(raw),
    }


def test_a_decoded_instruction_runs() -> None:
    found = decode_ia32(bytes.fromhex("8d4c2404"))  # lea ecx, [esp + 4]
    end = machine("ia32").step(
        found.instruction, Ia32.reset(esp=0x7000, eip=0x1000), found.operands(Ia32.reset(esp=0x7000))
    )
    assert isinstance(end, Next)
    assert (int(end.state["ecx"]), int(end.state["eip"])) == (0x7004, 0x1004)
    with pytest.raises(DecodingError, match=r"lea ecx.*depends on registers; expected a state"):
        found.operands()


@pytest.mark.emulator
def test_whatever_decodes_assembles_to_code_that_decodes_alike() -> None:
    rng, state = random.Random(11), Ia32.reset()
    seen, refused = [], 0
    for _ in range(4000):
        code = bytes(rng.choices((b"", b"\x66", b"\x67", b"\xf3", b"\x64"), (8, 2, 1, 1, 1))[0])
        code += bytes(rng.choices((b"", b"\x0f", b"\x0f\x01"), (4, 4, 1))[0]) + rng.randbytes(12)
        try:
            found = decode_ia32(code)
        except DecodingError:
            refused += 1
            continue
        assert decode_ia32(code[: found.length]) == found
        numbers = {name: int(word) for name, word in found.operands(state).items()}
        seen.append((found.instruction, {n: v for n, v in numbers.items() if n != "operand length"}))
    assert len({instruction.form for instruction, _ in seen}) > 100
    assert refused
    assert [text for one in assemble("ia32", 32, seen) if (text := complaint(one))] == []


@pytest.mark.parametrize(
    ("code", "bits", "expected"),
    [
        ("", 32, "no bytes: begins with no whole instruction of 32-bit code"),
        ("0f04", 32, "0f 04: begins with no whole instruction of 32-bit code"),
        ("66" * 20, 32, "begins with no whole instruction"),
        ("0f01", 32, "0f 01: begins with no whole instruction"),
        ("0fb9", 32, "0f b9: begins with no whole instruction"),
        ("0f1f00", 32, "0f 1f 00 (nop dword ptr [eax]): the machine ia32 has no such instruction form"),
        ("f00fb10b", 32, "(lock cmpxchg dword ptr [ebx], ecx): the machine ia32 has no such"),
        ("f2a4", 32, "(repne movsb"),
        ("f389d8", 32, "the machine ia32 has no such"),  # no prefix that the manual leaves open
        ("f30f01d0", 32, "the machine ia32 has no such"),
        ("660f01d0", 32, "the machine ia32 has no such"),
        ("66c3", 32, "66 c3 (ret): the machine ia32 has no such"),  # EIP cut to 16 bits
        ("66e81000", 32, "the machine ia32 has no such"),
        ("67a4", 32, "the machine ia32 has no such"),  # SI and DI
        ("c3", 16, "the machine ia32 has no such"),
        ("48cb", 32, None),
        ("90", 64, "64-bit code: expected 16 or 32 for ia32"),
    ],
)
def test_what_is_no_instruction_gets_one_line(code: str, bits: int, expected: str | None) -> None:
    if expected is None:
        assert decode_ia32(bytes.fromhex(code), bits).form == "DEC r32"
        return
    with pytest.raises(DecodingError) as raised:
        decode_ia32(bytes.fromhex(code), bits)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_capstone_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(DecodingError, match=r"needs Capstone; install it with the extra: popek\[decode\]"):
        decode_ia32(b"\x90")


def test_the_command_explains_what_the_bytes_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("ia32", code="0f 01 e0") == 0
    assert capsys.readouterr().out.startswith("smsw eax is SMSW r32\n")
    assert explain("x86-64", code="9c", json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [form["form"] for form in answer["forms"]] == ["PUSHFQ"]
    assert answer["decoded"] == {
        "form": "PUSHFQ",
        "text": "pushfq",
        "length": 1,
        "operands": {"operand length": 1},
        "references": {},
    }


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ia32", {"code": "0f 0"}, "--bytes '0f 0': expected hexadecimal bytes"),
        ("ia32", {"code": "mov"}, "--bytes 'mov': expected hexadecimal bytes"),
        ("ia32", {"code": "0f 04"}, "--bytes: 0f 04: begins with no whole instruction"),
        ("ia32", {"code": "fa fb"}, r"after cli \(CLI\) follows fb"),
        ("ia32", {"code": "90", "bits": 64}, "--bytes: 64-bit code: expected 16 or 32 for ia32"),
        ("pg74", {"code": "90"}, "no decoder for pg74, only for ia32 and x86-64"),
        ("ia32", {"bits": 16}, "expected an instruction, or its machine code with --bytes"),
    ],
)
def test_the_command_refuses_in_one_line(name: str, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as raised:
        explain(name, **arguments)
    assert "\n" not in str(raised.value)


def test_bytes_and_an_instruction_exclude_each_other() -> None:
    with pytest.raises(UserError, match="expected no instruction beside it, not 'SMSW'"):
        explain("ia32", "SMSW", code="90")
    with pytest.raises(UserError, match="--bits 16: expected only with --bytes"):
        explain("ia32", "SMSW", bits=16)


def test_the_decoder_names_nothing_that_no_table_has() -> None:
    """A list that still names a form that was renamed would quietly stop to count."""
    words = {
        word
        for name in ("ia32", "x86-64")
        for form in machine(name).instructions
        for word in form.replace(",", " ").split()
    }
    named = {*decoding._NAMES.values(), *decoding._CONVERSIONS.values(), *decoding._STACK, *decoding._NO_66}
    named |= {mnemonic for mnemonic, _ in decoding._LOW_WORD}
    assert {name for name in named if name not in words} == set()
    assert [start for start in decoding._WITH_F3 if not any(word.startswith(start) for word in words)] == []
    for pattern in (decoding._SOURCES, decoding._ADDRESSED, decoding._IMPLIED):
        for one in alternatives(pattern.pattern):
            assert any(re.fullmatch(one, word) for word in words), one


def alternatives(pattern: str) -> list[str]:
    """Each mnemonic that a pattern names: `(A|B)[CD]|E` is A[CD], B[CD] and E."""
    found = []
    for branch in re.findall(r"(?:\([^)]*\)[^|]*|[^|]+)", pattern):
        inner = re.fullmatch(r"\(([^)]*)\)(.*)", branch)
        found += [one + inner[2] for one in inner[1].split("|")] if inner else [branch]
    return found


@pytest.mark.emulator
def test_a_form_that_nobody_told_the_decoder_of_is_told_where_to_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(decoding._NAMES, "wait")
    (first, *_) = complaints("ia32", 32)
    assert first.startswith("FWAIT: ")
    assert "decoding.py: _NAMES if Capstone" in first
