"""PDP-10: ordinary instructions by the reference manual's tables and mnemonics, on numbers, both sides of each rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next
from popek.kernel.words import Word
from popek.machines import machine

KA10, KS10 = machine("pdp10-ka10"), machine("pdp10-ks10")
BOTH = pytest.mark.parametrize("machine", [KA10, KS10], ids=lambda one: str(one.name))
ALL, LEFT, RIGHT, SIGN = (1 << 36) - 1, 0o777777000000, 0o777777, 1 << 35
PC, PLACE = 0o100, 0o1000
ONE, TWO = 0o123456701234, 0o654321543210


def run(machine: Machine[Any], form: str, words: Mapping[int, int], **changes: int) -> Any:
    """The state after a form with AC 3 and E 1000 octal, where storage holds the words; `E` gives another address."""
    parts = {"AC": 3, "A": 3, "E": changes.pop("E", PLACE), "B": 0}
    state = machine.state.reset(**{"pc": PC, "flags": 0, **changes})
    state.memory = Memory(state.memory.address_width, 36, dict(words))
    instruction = machine.instructions[form]
    operands = {
        name: Word(word.width, parts[name.removeprefix("operand ")])
        for name, word in instruction.symbols().items()
    }
    outcome = machine.step(instruction, state, operands)
    assert isinstance(outcome, Next), outcome
    return outcome.state


def stored(state: Any, address: int = PLACE) -> int:
    return int(state.memory.load(Word(state.memory.address_width, address)))


def signed(word: int) -> int:
    return word - (word >> 35 << 36)


@BOTH
@pytest.mark.parametrize("name", [f"H{a}{b}{c}" for a in "LR" for b in "LR" for c in ("", "Z", "O", "E")])
def test_half_words_move_and_the_other_half_is_kept_or_filled(machine: Machine[Any], name: str) -> None:
    def moved(source: int, destination: int) -> int:
        half = source >> 18 if name[1] == "L" else source & RIGHT
        other = destination & RIGHT if name[2] == "L" else destination >> 18
        fill = {"Z": 0, "O": RIGHT, "E": RIGHT * (half >> 17)}
        other = fill[name[3]] if name[3:] else other
        return half << 18 | other if name[2] == "L" else other << 18 | half

    for one, two in ((ONE, TWO), (TWO, ONE), (0o400000377777, 0o377777400000), (0o377777400000, ONE)):
        assert int(run(machine, f"{name} AC, E", {PLACE: one}, ac3=two).ac[3]) == moved(one, two)
        assert stored(run(machine, f"{name}M AC, E", {PLACE: one}, ac3=two)) == moved(two, one)
        after = run(machine, f"{name}S AC, E", {PLACE: one}, ac3=two)
        assert stored(after) == int(after.ac[3]) == moved(one, one)
    for e in (0o123456, 0o654321):
        assert int(run(machine, f"{name}I AC, E", {}, ac3=TWO, E=e).ac[3]) == moved(e, TWO)


# Boolean functions of AC and the operand: the manual's table, the result for AC and operand 00, 01, 10, 11.
BOOLEAN = {
    "SETZ": "0000", "AND": "0001", "ANDCA": "0100", "SETM": "0101", "ANDCM": "0010", "SETA": "0011", "XOR": "0110",
    "IOR": "0111", "ANDCB": "1000", "EQV": "1001", "SETCA": "1100", "ORCA": "1101", "SETCM": "1010", "ORCM": "1011",
    "ORCB": "1110", "SETO": "1111",
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", BOOLEAN)
def test_boolean_functions(machine: Machine[Any], name: str) -> None:
    ac, operand = 0o001100110011, 0o010101010101

    def function(word: int) -> int:
        return sum(
            int(BOOLEAN[name][2 * (ac >> place & 1) + (word >> place & 1)]) << place for place in range(36)
        )

    for suffix, in_ac, in_storage in (("", True, False), ("M", False, True), ("B", True, True)):
        form = f"{name}{suffix} AC, E"
        if form in machine.instructions:
            after = run(machine, form, {PLACE: operand}, ac3=ac)
            assert int(after.ac[3]) == (function(operand) if in_ac else ac), form
            assert stored(after) == (function(operand) if in_storage else operand), form
    form = f"{name}I AC, E"
    assert int(run(machine, form, {}, ac3=ac, E=0o010101).ac[3]) == function(0o010101)


@BOTH
@pytest.mark.parametrize("operand", "RLDS")
def test_bits_are_tested_and_changed(machine: Machine[Any], operand: str) -> None:
    given = 0o000005700000
    half = given & RIGHT
    mask = {
        "R": half, "L": half << 18, "D": given, "S": (given & RIGHT) << 18 | given >> 18,
    }[operand]  # fmt: skip
    for ac in (mask, ALL ^ mask, ALL, 0, mask & -mask):
        for change, result in (("N", ac), ("Z", ac & ~mask), ("C", ac ^ mask), ("O", ac | mask)):
            for skips, wanted in (("", False), ("E", not ac & mask), ("A", True), ("N", bool(ac & mask))):
                form = f"T{operand}{change}{skips} AC, E"
                e = half if operand in "RL" else PLACE
                after = run(machine, form, {PLACE: given}, ac3=ac, E=e)
                assert (int(after.ac[3]), int(after.pc)) == (result, PC + 1 + wanted), (form, oct(ac))


CONDITIONS: Mapping[str, Callable[[int, int], bool]] = {
    "": lambda one, two: False, "L": lambda one, two: one < two, "E": lambda one, two: one == two,
    "LE": lambda one, two: one <= two, "A": lambda one, two: True, "GE": lambda one, two: one >= two,
    "N": lambda one, two: one != two, "G": lambda one, two: one > two,
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", CONDITIONS)
def test_comparisons_skip_or_jump_and_counts_do(machine: Machine[Any], name: str) -> None:
    holds, jump = CONDITIONS[name], 0o2000
    for word in (0, 1, 2, ALL, ALL - 1, SIGN, SIGN - 1, PLACE):
        for other in (0, 1, ALL, SIGN, word):
            pc = PC + 1 + holds(signed(word), signed(other))
            assert int(run(machine, f"CAM{name} AC, E", {PLACE: other}, ac3=word).pc) == pc
        assert int(run(machine, f"CAI{name} AC, E", {}, ac3=word).pc) == PC + 1 + holds(signed(word), PLACE)
        goes = holds(signed(word), 0)
        after = run(machine, f"SKIP{name} AC, E", {PLACE: word})
        assert (int(after.pc), int(after.ac[3])) == (PC + 1 + goes, word)
        if name:  # JUMP and JUMPA are in another list
            after = run(machine, f"JUMP{name} AC, E", {}, ac3=word, E=jump)
            assert int(after.pc) == (jump if goes else PC + 1)
        for letter, by in (("A", 1), ("S", -1)):
            result = word + by & ALL
            goes = holds(signed(result), 0)
            after = run(machine, f"{letter}OJ{name} AC, E", {}, ac3=word, E=jump)
            assert (int(after.pc), int(after.ac[3])) == (jump if goes else PC + 1, result)
            after = run(machine, f"{letter}OS{name} AC, E", {PLACE: word})
            assert (int(after.pc), int(after.ac[3]), stored(after)) == (PC + 1 + goes, result, result)
            overflows = word == (SIGN - 1 if by == 1 else SIGN)
            assert int(after.flags.overflow) == overflows


@BOTH
@pytest.mark.parametrize(
    ("form", "high", "low", "e", "quotient", "rest"),
    [
        ("IDIVI AC, E", 7, 0, 2, 3, 1), ("IDIVI AC, E", ALL - 6, 0, 2, ALL - 2, ALL),  # -7 / 2 is -3, -1 is left
        ("DIVI AC, E", 0, 7, 2, 3, 1), ("DIVI AC, E", 1, 5, 2, (1 << 34) + 2, 1), ("DIVI AC, E", 1, 0, 1, None, None),
        ("DIVI AC, E", 0, 7, 0, None, None), ("DIVI AC, E", 2, 0, 2, None, None),
    ],
)  # fmt: skip
def test_a_quotient_that_does_not_fit_is_none(
    machine: Machine[Any], form: str, high: int, low: int, e: int, quotient: int | None, rest: int | None
) -> None:
    """DIVI divides a double word, whose low word has 35 bits of magnitude: its high word must be below the divisor."""
    after = run(machine, form, {}, ac3=high, ac4=low, E=e)
    none = quotient is None
    assert (int(after.flags.no_divide), int(after.flags.overflow)) == (none, none)
    assert (int(after.ac[3]), int(after.ac[4])) == ((high, low) if none else (quotient, rest))


@BOTH
@pytest.mark.parametrize(
    ("form", "a", "b", "first", "second", "place", "overflow"),
    [
        ("MUL AC, E", 3, ALL - 4, ALL, ALL - 14, ALL - 4, 0),  # 3 times -5 is -15, in two words with the sign
        ("MULM AC, E", SIGN - 1, 4, SIGN - 1, TWO, 3, 0),  # the high word to storage alone: 4 (2^35 - 1) is 3, 2^35 - 4
        ("MULB AC, E", SIGN - 1, 4, 3, SIGN - 4, 3, 0),
        ("MUL AC, E", SIGN, SIGN, SIGN, SIGN, SIGN, 1),  # 2^70 does not fit, and both words have the sign
        ("IMUL AC, E", 3, ALL - 4, ALL - 14, TWO, ALL - 4, 0),
        ("IMULM AC, E", 5, 7, 5, TWO, 35, 0),
        ("IMULB AC, E", SIGN - 1, 2, SIGN - 2, TWO, SIGN - 2, 1),
        ("DIV AC, E", 1, 9, (1 << 34) + 4, 1, 9, 0),  # rows about quotients: TWO is not the low word there
        ("DIVM AC, E", 0, 9, 0, TWO, 4, 0),
        ("IDIV AC, E", ALL - 6, 2, ALL - 2, ALL, 2, 0),
        ("IDIVM AC, E", 7, ALL - 1, 7, TWO, ALL - 2, 0),
        ("IDIVB AC, E", 7, 2, 3, 1, 3, 0),
    ],
)  # fmt: skip
def test_products_and_quotients_go_where_the_mode_says(
    machine: Machine[Any], form: str, a: int, b: int, first: int, second: int, place: int, overflow: int
) -> None:
    """M: to E alone, of a product in two words the high one; B: to both."""
    low = 9 if form.startswith("DIV") else TWO
    divisor = 2 if form.startswith("DIV") else b
    after = run(machine, form, {PLACE: divisor}, ac3=a, ac4=low)
    found = int(after.ac[3]), int(after.ac[4]), stored(after), int(after.flags.overflow)
    wanted = first, low if second == TWO else second, divisor if form == "DIV AC, E" else place, overflow
    assert found == wanted


def test_only_the_ks10_divides_the_least_number_by_one() -> None:
    """IDIV of -2^35 by -1 has no quotient of 36 bits: the KS10 gives -2^35 and sets nothing."""
    for one, none in ((KA10, 1), (KS10, 0)):
        after = run(one, "IDIV AC, E", {PLACE: ALL}, ac3=SIGN)
        assert (int(after.flags.no_divide), int(after.ac[3])) == (none, SIGN)


@BOTH
def test_ildb_counts_the_pointer_and_takes_the_byte(machine: Machine[Any]) -> None:
    """Bytes of 6 bits; after the last one of a word the pointer goes to the next word."""
    pointer = 0o00 << 30 | 0o06 << 24 | 0o2000
    words = {PLACE: pointer, 0o2001: 0o414243444546}
    after = run(machine, "ILDB AC, E, B", words)
    assert (int(after.ac[3]), stored(after)) == (0o41, 0o36 << 30 | 0o06 << 24 | 0o2001)


@pytest.mark.parametrize(
    ("by", "position", "size", "moved", "words"),
    [
        (1, 0o36, 6, 0o30, 0),  # to the next byte of the word
        (1, 0, 6, 0o36, 1),  # from the last one to the next word's first
        (ALL, 0o36, 6, 0, -1),  # one back from the first
        (7, 1, 7, 0o26, 2),  # five of 7 bits a word, one bit over: 5 + 7 is two words and the second byte
        (0, 0o44, 6, 0, -1),  # before the first is after the last
    ],
)
def test_adjbp_counts_bytes(by: int, position: int, size: int, moved: int, words: int) -> None:
    pointer = position << 30 | size << 24 | 0o2000
    after = run(KS10, "ADJBP A, E", {PLACE: pointer}, ac3=by)
    assert int(after.ac[3]) == moved << 30 | size << 24 | 0o2000 + words
    assert stored(after) == pointer


def test_adjbp_of_bytes_that_do_not_fit_is_no_divide() -> None:
    after = run(KS10, "ADJBP A, E", {PLACE: 0o22 << 30 | 0o44 << 24}, ac3=5)
    assert (int(after.flags.no_divide), int(after.ac[3])) == (1, 5)


def test_double_products_and_quotients() -> None:
    """(2^35 - 1) * 3 is 2 and 2^35 - 3 in the low words; and back."""
    words = {PLACE: 0, PLACE + 1: 3}
    after = run(KS10, "DMUL AC, E", words, ac3=0, ac4=SIGN - 1)
    four = [int(after.ac[3 + n]) for n in range(4)]
    assert four == [0, 0, 2, SIGN - 3]
    back = run(KS10, "DDIV AC, E", words, **{f"ac{3 + n}": four[n] for n in range(4)})
    assert [int(back.ac[3 + n]) for n in range(4)] == [0, SIGN - 1, 0, 0]
    none = run(KS10, "DDIV AC, E", {PLACE: 0, PLACE + 1: 3}, ac3=0, ac4=3, ac5=0, ac6=0)
    assert (int(none.flags.no_divide), int(none.ac[4])) == (1, 3)


def test_an_exchange_of_flags_and_pc_takes_the_second_pair() -> None:
    """XPCW: two words are stored, two loaded."""
    words = {PLACE + 2: 0o400000 << 18, PLACE + 3: 0o3456, PLACE + 4: 0o7777}
    after = run(KS10, "JRST 7, E", words, flags=0o04000)  # Carry 0
    assert (int(after.pc), int(after.flags.value)) == (0o3456, 0o10000)
    assert (stored(after), stored(after, PLACE + 1)) == (0o04000 << 23, PC + 1)


def test_conditions_are_tested_on_the_ka10() -> None:
    """Bit 28 of CONI PI: the interrupt system is on."""
    for on in (0, 1):
        for form, wanted in (("CONSO PI, E", on), ("CONSZ PI, E", 1 - on)):
            assert int(run(KA10, form, {}, E=0o200, pi_on=on).pc) == PC + 1 + wanted
