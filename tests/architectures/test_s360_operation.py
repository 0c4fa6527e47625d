"""System/360 and System/370: ordinary instructions by numbers from the Principles of Operation, each condition code."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from popek.architectures.s360 import MACHINES
from popek.architectures.s360.state import ADDRESS, BLOCK
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word

PLACE, BASE, START = 0x3000, 3, 0x1000
HIGH, MINUS = 0x80000000, 0xFFFFFFFF
pytestmark = pytest.mark.parametrize("name", ["s370", "s360-67"])


@cache
def machine(name: str) -> Machine[Any]:
    """Built once."""
    built = MACHINES[name]()
    assert isinstance(built, Machine)
    return built


def run(
    name: str, form: str, content: str = "", registers: dict[int, int] | None = None, **parts: int
) -> Any:
    """The state after a form; storage from `PLACE` on has the content, and a base is register 3.

    A displacement is `D1` or `D2`, a number of the form by its name.  The condition code before is 3.
    `key` is the PSW's; `here` and `next` are of the block of `PLACE` and of the one behind it, without the last bit.
    """
    cpu = machine(name).state.reset()
    cpu.psw.cc = Word(2, 3)
    for number, value in {BASE: PLACE, **(registers or {})}.items():
        cpu.gr[number] = Word(32, value)
    cpu.psw.key = Word(4, parts.pop("key", 0))
    keys = {PLACE >> 11: parts.pop("here", 0), (PLACE >> 11) + 1: parts.pop("next", 0)}
    cpu.keys = Memory(BLOCK, 7, keys)
    cpu.memory = Memory(ADDRESS, 8, {PLACE + i: byte for i, byte in enumerate(bytes.fromhex(content))})
    (instruction,) = machine(name).find(form)
    words = {}
    for operand in instruction.inputs:
        for part, width in operand.part_names():
            bare = part.removeprefix("operand ")
            wanted = bare[:2] if bare.endswith(".d") else bare
            words[part] = Word(width, parts.get(wanted, BASE if bare.endswith(".b") else 0))
    outcome = machine(name).step(instruction, cpu, words)
    assert isinstance(outcome, Next | Trap)
    return outcome.state


def stored(cpu: Any, size: int, at: int = 0) -> str:
    return "".join(f"{int(cpu.memory.load(Word(ADDRESS, PLACE + at + i))):02X}" for i in range(size))


# Mnemonic without R, the first operand, the second, the result, the condition code.
ARITHMETIC = (
    ("A", 1, MINUS, 0, 0), ("A", 1, MINUS - 1, MINUS, 1), ("A", 1, 1, 2, 2), ("A", HIGH - 1, 1, HIGH, 3),
    ("A", HIGH, MINUS, HIGH - 1, 3), ("S", 1, 1, 0, 0), ("S", 0, 1, MINUS, 1), ("S", 2, 1, 1, 2),
    ("S", HIGH, 1, HIGH - 1, 3), ("S", HIGH - 1, MINUS, HIGH, 3),
    ("AL", 0, 0, 0, 0), ("AL", 1, 1, 2, 1), ("AL", MINUS, 1, 0, 2), ("AL", MINUS, 2, 1, 3),
    ("SL", 1, 1, 0, 2), ("SL", 2, 1, 1, 3), ("SL", 0, 1, MINUS, 1),
    ("C", 5, 5, 5, 0), ("C", MINUS, 1, MINUS, 1), ("C", 1, MINUS, 1, 2),
    ("CL", 5, 5, 5, 0), ("CL", MINUS, 1, MINUS, 2), ("CL", 1, MINUS, 1, 1),
    ("N", 5, 3, 1, 1), ("N", 4, 3, 0, 0), ("O", 4, 1, 5, 1), ("O", 0, 0, 0, 0), ("X", 5, 5, 0, 0), ("X", 5, 3, 6, 1),
    ("L", 5, MINUS, MINUS, 3),
)  # fmt: skip


@pytest.mark.parametrize("row", ARITHMETIC)
def test_two_words(name: str, row: tuple[str, int, int, int, int]) -> None:
    mnemonic, first, second, result, cc = row
    cpu = run(name, f"{mnemonic}R R1,R2", registers={4: first, 5: second}, R1=4, R2=5)
    assert (int(cpu.gr[4]), int(cpu.gr[5]), int(cpu.psw.cc)) == (result, second, cc)
    cpu = run(name, f"{mnemonic} R1,D2(X2,B2)", f"{second:08X}", {4: first}, R1=4)
    assert (int(cpu.gr[4]), int(cpu.psw.cc)) == (result, cc)
    if mnemonic in ("A", "S", "C", "L") and second in (1, 2, 5, MINUS, MINUS - 1):
        cpu = run(name, f"{mnemonic}H R1,D2(X2,B2)", f"{second & 0xFFFF:04X}", {4: first}, R1=4)
        assert (int(cpu.gr[4]), int(cpu.psw.cc)) == (result, cc)


@pytest.mark.parametrize(
    ("form", "operand", "result", "cc"),
    [
        ("LPR", MINUS, 1, 2), ("LPR", 0, 0, 0), ("LPR", HIGH, HIGH, 3), ("LPR", 7, 7, 2),
        ("LNR", 1, MINUS, 1), ("LNR", 0, 0, 0), ("LNR", HIGH, HIGH, 1),
        ("LCR", 1, MINUS, 1), ("LCR", MINUS, 1, 2), ("LCR", 0, 0, 0), ("LCR", HIGH, HIGH, 3),
        ("LTR", HIGH, HIGH, 1), ("LTR", 0, 0, 0), ("LTR", 1, 1, 2),
    ],
)  # fmt: skip
def test_one_word(name: str, form: str, operand: int, result: int, cc: int) -> None:
    cpu = run(name, f"{form} R1,R2", registers={5: operand}, R1=4, R2=5)
    assert (int(cpu.gr[4]), int(cpu.psw.cc)) == (result, cc)


def test_products_and_quotients(name: str) -> None:
    for form, content in (("MR R1,R2", ""), ("M R1,D2(X2,B2)", "00000002")):
        cpu = run(name, form, content, {5: MINUS, 6: 2}, R1=4, R2=6)
        assert (int(cpu.gr[4]), int(cpu.gr[5])) == (MINUS, MINUS - 1)
    cpu = run(name, "MH R1,D2(X2,B2)", "FFFE", {4: 3}, R1=4)
    assert int(cpu.gr[4]) == MINUS - 5
    for high, low, rest, quotient in ((0, 7, 1, 3), (MINUS, MINUS - 6, MINUS, MINUS - 2)):
        for form, content in (("DR R1,R2", ""), ("D R1,D2(X2,B2)", "00000002")):
            cpu = run(name, form, content, {4: high, 5: low, 6: 2}, R1=4, R2=6)
            assert (int(cpu.gr[4]), int(cpu.gr[5])) == (rest, quotient)


@pytest.mark.parametrize(
    ("form", "high", "low", "after_high", "after_low", "cc"),
    [
        ("SRL", HIGH + 1, 0, HIGH >> 1, 0, 3), ("SLL", HIGH + 1, 0, 2, 0, 3),
        ("SRA", HIGH + 1, 0, 0xC0000000, 0, 1), ("SRA", 1, 0, 0, 0, 0), ("SRA", 2, 0, 1, 0, 2),
        ("SLA", 1, 0, 2, 0, 2), ("SLA", HIGH >> 1, 0, 0, 0, 3), ("SLA", 0xC0000000, 0, HIGH, 0, 1),
        ("SRDL", 1, 0, 0, HIGH, 3), ("SLDL", 0, HIGH, 1, 0, 3), ("SRDA", HIGH, 1, 0xC0000000, 0, 1),
        ("SLDA", 0, HIGH, 1, 0, 2), ("SLDA", HIGH >> 1, 0, 0, 0, 3),
    ],
)  # fmt: skip
def test_shifts_by_one(
    name: str, form: str, high: int, low: int, after_high: int, after_low: int, cc: int
) -> None:
    """Of the second address only six bits count."""
    cpu = run(name, f"{form} R1,D2(B2)", registers={4: high, 5: low}, R1=4, D2=0x41)
    assert (int(cpu.gr[4]), int(cpu.gr[5]), int(cpu.psw.cc)) == (after_high, after_low, cc)


@pytest.mark.parametrize(
    ("form", "first", "second", "result", "cc"),
    [
        ("NC", "F00F", "3C3C", "300C", 1), ("NC", "AA55", "55AA", "0000", 0), ("OC", "F00F", "0C30", "FC3F", 1),
        ("OC", "0000", "0000", "0000", 0), ("XC", "F00F", "FFFF", "0FF0", 1), ("XC", "1234", "1234", "0000", 0),
        ("MVN", "1234", "5678", "1638", 3), ("MVZ", "1234", "5678", "5274", 3), ("MVC", "1234", "5678", "5678", 3),
        ("MVO", "1234", "5678", "6784", 3), ("PACK", "0000", "F1F2", "012F", 3), ("UNPK", "0000", "012F", "F1F2", 3),
        ("CLC", "1234", "1234", "1234", 0), ("CLC", "1233", "1234", "1233", 1), ("CLC", "FF00", "1234", "FF00", 2),
    ],
)  # fmt: skip
def test_two_bytes_of_storage(name: str, form: str, first: str, second: str, result: str, cc: int) -> None:
    other = "2,B2" if form in ("MVO", "PACK", "UNPK") else "B2"
    cpu = run(name, f"{form} D1(2,B1),D2({other})", first + "0000" + second, D2=4)
    assert (stored(cpu, 2), stored(cpu, 2, 4), int(cpu.psw.cc)) == (result, second, cc)


@pytest.mark.parametrize(
    ("form", "first", "second", "result", "cc"),
    [
        ("AP", "123C", "456C", "579C", 2), ("AP", "123D", "023C", "100D", 1), ("AP", "005D", "005C", "000C", 0),
        ("AP", "999C", "002F", "001C", 3), ("AP", "999D", "001B", "000D", 3),  # a lost digit leaves the sign
        ("SP", "123C", "456C", "333D", 1), ("SP", "000D", "000D", "000C", 0), ("SP", "500A", "500B", "000C", 3),
        ("ZAP", "FFFF", "042A", "042C", 2), ("ZAP", "0000", "000D", "000C", 0), ("ZAP", "1234", "007B", "007D", 1),
        ("CP", "123C", "123A", "123C", 0), ("CP", "000D", "000C", "000D", 0), ("CP", "001D", "000C", "001D", 1),
        ("CP", "999C", "999D", "999C", 2),  # the difference needs more digits, and is no overflow
    ],
)  # fmt: skip
def test_decimals(name: str, form: str, first: str, second: str, result: str, cc: int) -> None:
    cpu = run(name, f"{form} D1(2,B1),D2(2,B2)", first + "0000" + second, D2=4)
    assert (stored(cpu, 2), stored(cpu, 2, 4), int(cpu.psw.cc)) == (result, second, cc)


def test_a_byte_moved_onto_the_next_is_moved_again(name: str) -> None:
    cpu = run(name, "MVC D1(2,B1),D2(B2)", "123456", D1=1, D2=0)
    assert stored(cpu, 3) == "121212"


def test_translation(name: str) -> None:
    table = "02" + "00" * 7 + "0000AB"
    cpu = run(name, "TR D1(1,B1),D2(B2)", table, D2=8)
    assert stored(cpu, 1) == "AB"
    before = {1: 0x77123456, 2: 0x12345678}
    cpu = run(name, "TRT D1(1,B1),D2(B2)", table, before, D2=8)
    assert [int(cpu.gr[1]), int(cpu.gr[2]), int(cpu.psw.cc)] == [0x77003000, 0x123456AB, 2]
    cpu = run(name, "TRT D1(1,B1),D2(B2)", table, before, D2=7)
    assert [int(cpu.gr[1]), int(cpu.gr[2]), int(cpu.psw.cc)] == [0x77123456, 0x12345678, 0]


@pytest.mark.parametrize(
    ("form", "byte", "value", "result", "cc"),
    [
        ("TM", "F0", 0x0F, "F0", 0), ("TM", "1F", 0x0F, "1F", 3), ("TM", "03", 0x0F, "03", 1), ("TM", "FF", 0, "FF", 0),
        ("NI", "F3", 0x35, "31", 1), ("NI", "F0", 0x0F, "00", 0), ("OI", "F0", 0x01, "F1", 1), ("OI", "00", 0, "00", 0),
        ("XI", "F3", 0x35, "C6", 1), ("XI", "35", 0x35, "00", 0), ("MVI", "F3", 0x35, "35", 3),
        ("CLI", "35", 0x35, "35", 0), ("CLI", "34", 0x35, "34", 1), ("CLI", "F0", 0x35, "F0", 2),
    ],
)  # fmt: skip
def test_a_byte_and_an_immediate(name: str, form: str, byte: str, value: int, result: str, cc: int) -> None:
    cpu = run(name, f"{form} D1(B1),I2", byte, I2=value)
    assert (stored(cpu, 1), int(cpu.psw.cc)) == (result, cc)


def test_test_and_set_takes_the_leftmost_bit(name: str) -> None:
    for byte, cc in (("7F", 0), ("80", 1)):
        cpu = run(name, "TS D2(B2)", byte)
        assert (stored(cpu, 1), int(cpu.psw.cc)) == ("FF", cc)


def test_loads_and_stores_of_parts(name: str) -> None:
    assert int(run(name, "LH R1,D2(X2,B2)", "8001", R1=4).gr[4]) == 0xFFFF8001
    assert int(run(name, "IC R1,D2(X2,B2)", "81", {4: 0x11223344}, R1=4).gr[4]) == 0x11223381
    for form, size, content in (("ST", 4, "11223344"), ("STH", 2, "3344AAAA"), ("STC", 1, "44AAAAAA")):
        assert stored(run(name, f"{form} R1,D2(X2,B2)", "AAAAAAAA", {4: 0x11223344}, R1=4), 4) == content, (
            size
        )


def test_branches(name: str) -> None:
    """Bit 0 of the mask is for condition code 0; here it is 3."""
    for mask in range(16):
        taken = run(name, "BC M1,D2(X2,B2)", M1=mask, D2=0x20)
        assert int(taken.psw.address) == (PLACE + 0x20 if mask & 1 else START + 4)
    for count, left in ((2, 1), (1, 0), (0, MINUS)):
        cpu = run(name, "BCT R1,D2(X2,B2)", registers={4: count}, R1=4)
        assert (int(cpu.gr[4]), int(cpu.psw.address)) == (left, PLACE if left else START + 4)
    for total, low in ((2, True), (3, False)):
        for form, taken_if in (("BXLE", True), ("BXH", False)):
            cpu = run(name, f"{form} R1,R3,D2(B2)", registers={4: total, 6: 1, 7: 3}, R1=4, R3=6)
            assert int(cpu.gr[4]) == total + 1
            assert int(cpu.psw.address) == (PLACE if low is taken_if else START + 4)


def test_compare_and_swap(name: str) -> None:
    if name == "s360-67":
        assert not any(form.startswith("CS ") for form in machine(name).instructions)
        return
    cpu = run(name, "CS R1,R3,D2(B2)", "00000005", {4: 5, 6: 9}, R1=4, R3=6)
    assert (stored(cpu, 4), int(cpu.gr[4]), int(cpu.psw.cc)) == ("00000009", 5, 0)
    cpu = run(name, "CS R1,R3,D2(B2)", "00000005", {4: 4, 6: 9}, R1=4, R3=6)
    assert (stored(cpu, 4), int(cpu.gr[4]), int(cpu.psw.cc)) == ("00000005", 5, 1)


OTHER, FETCH = 2 << 3, 1 << 2  # the access control bits, and fetch protection


@pytest.mark.parametrize("form", ["MVC D1(1,B1),D2(B2)", "MVC D1(2,B1),D2(B2)", "NC D1(2,B1),D2(B2)"])
def test_another_key_keeps_from_storing_and_with_fetch_protection_from_fetching(name: str, form: str) -> None:
    """Key 1; the first operand is in the next block, whose key is 1, the second here."""

    def result(here: int, behind: int) -> str:
        cpu = run(
            name,
            form,
            "12345678",
            {4: PLACE + 0x800},
            **{"D1(1,B1).b": 4, "D1(2,B1).b": 4},
            key=1,
            here=here,
            next=behind,
        )
        return stored(cpu, 1, 0x800) + f"{int(cpu.psw.cc)}"

    plain = result(1 << 3, 1 << 3)
    assert result(OTHER, 1 << 3) == plain
    assert plain == ("000" if form.startswith("NC") else "123")
    assert result(1 << 3, OTHER) == "003"  # nothing is stored, and the condition code stays
    assert result(OTHER | FETCH, 1 << 3) == "003"
