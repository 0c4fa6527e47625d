"""System/360 and System/370: conversions, ASCII-8 codes, masks, page keys, and the interrupts of the Model 67.

Numbers are worked out by hand from the manuals' descriptions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import attrs
import pytest

from popek.architectures.s360 import MACHINES
from popek.architectures.s360 import interruptions as program
from popek.architectures.s360.deprivileging import techniques
from popek.architectures.s360.model67 import Model67
from popek.architectures.s360.s370_state import S370
from popek.architectures.s360.state import ADDRESS, BLOCK, Cpu
from popek.checks.classify import Classifier
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

PLACE = 0x3000


@cache
def machine(name: str) -> Machine[Any]:
    built = MACHINES[name]()
    assert isinstance(built, Machine)
    return built


def run(name: str, form: str, cpu: Cpu, **registers: int) -> Outcome[Any]:
    """One instruction whose storage operand, if any, begins at `PLACE`."""
    (instruction,) = machine(name).find(form)
    words = {}
    for operand in instruction.inputs:
        for part, width in operand.part_names():
            bare = part.removeprefix("operand ")
            number = registers.get(bare, PLACE >> 12 if bare.endswith(".b") else 0)
            words[part] = Word(width, number)
    return machine(name).step(instruction, cpu, words)


def with_storage(cpu: Cpu, content: bytes) -> Cpu:
    cpu.gr[PLACE >> 12] = Word(32, PLACE)
    cpu.memory = Memory(ADDRESS, 8, {PLACE + i: byte for i, byte in enumerate(content)})
    return cpu


def stored(cpu: Cpu, address: int, size: int) -> str:
    return "".join(f"{int(cpu.memory.load(Word(ADDRESS, address + i))):02X}" for i in range(size))


@pytest.mark.parametrize("name", ["s370", "s360-67"])
@pytest.mark.parametrize(
    ("packed", "number", "vector"),
    [
        ("000000000025594D", -25594 & 0xFFFFFFFF, None),
        ("000002147483647C", 0x7FFFFFFF, None),
        ("000002147483648D", 0x80000000, None),
        ("000002147483648C", 0x80000000, program.FIXED_POINT_DIVIDE),
        ("000002147483649B", 0x7FFFFFFF, program.FIXED_POINT_DIVIDE),
        ("999999999999999F", 999_999_999_999_999 & 0xFFFFFFFF, program.FIXED_POINT_DIVIDE),
        ("0000000000000A0C", 5, program.DATA),
        ("0000000000000019", 5, program.DATA),
    ],
)
def test_convert_to_binary(name: str, packed: str, number: int, vector: object) -> None:
    cpu = with_storage(machine(name).state.reset(), bytes.fromhex(packed))
    cpu.gr[7] = Word(32, 5)
    outcome = run(name, "CVB R1,D2(X2,B2)", cpu, R1=7)
    assert isinstance(outcome, Next | Trap)
    assert int(outcome.state.gr[7]) == number
    assert (outcome.vector if isinstance(outcome, Trap) else None) == vector


@pytest.mark.parametrize(
    ("name", "ascii", "number", "packed"),
    [
        ("s370", 0, 0x0000000F, "000000000000015C"),
        ("s370", 0, 0x80000000, "000002147483648D"),
        ("s360-67", 0, 0xFFFFFFFF, "000000000000001D"),
        ("s360-67", 1, 0xFFFFFFFF, "000000000000001B"),
        ("s360-67", 1, 0x00000000, "000000000000000A"),
    ],
)
def test_convert_to_decimal_with_the_codes_that_the_psw_chooses(
    name: str, ascii: int, number: int, packed: str
) -> None:
    cpu = with_storage(machine(name).state.reset(), b"")
    if ascii:
        cpu["psw.ascii"] = Word(1, 1)
    cpu.gr[7] = Word(32, number)
    outcome = run(name, "CVD R1,D2(X2,B2)", cpu, R1=7)
    assert isinstance(outcome, Next)
    assert stored(outcome.state, PLACE, 8) == packed


def test_a_guest_whose_ascii_bit_is_the_monitors_reads_it_by_unpacking() -> None:
    """Why the technique of the Model 67 leaves PSW bit 12 to the guest."""
    plain = machine("s360-67")
    (form,) = plain.find("UNPK D1(2,B1),D2(2,B2)")
    for shared, critical in ((("psw.ascii",), Truth.NO), ((), Truth.YES)):
        other = attrs.evolve(plain, techniques=techniques(Model67, shared=shared))
        assert Classifier(Subject.of(other, None, ())).classify(form).critical is critical


@pytest.mark.parametrize(
    ("mask", "register", "cc"),
    [(0b0101, 0x11813380, 1), (0b1000, 0x81223344, 1), (0b0000, 0x11223344, 0), (0b1111, 0x81807F01, 1)],
)
def test_insert_characters_under_any_mask(mask: int, register: int, cc: int) -> None:
    cpu = with_storage(S370.reset(), bytes.fromhex("81807F01"))
    cpu.gr[7] = Word(32, 0x11223344)
    outcome = run("s370", "ICM R1,M3,D2(B2)", cpu, R1=7, M3=mask)
    assert isinstance(outcome, Next)
    assert (int(outcome.state.gr[7]), int(outcome.state.psw.cc)) == (register, cc)


def test_store_characters_under_a_mask_stores_the_selected_ones_side_by_side() -> None:
    cpu = with_storage(S370.reset(), bytes(4))
    cpu.gr[7] = Word(32, 0x11223344)
    outcome = run("s370", "STCM R1,M3,D2(B2)", cpu, R1=7, M3=0b1010)
    assert isinstance(outcome, Next)
    assert stored(outcome.state, PLACE, 4) == "11330000"


@pytest.mark.parametrize(
    ("key", "storage_key", "cc"),
    [(0, 0x94, 0), (0x90, 0x94, 0), (0x80, 0x90, 1), (0x80, 0x98, 2)],
)
def test_test_protection_tells_what_a_key_allows(key: int, storage_key: int, cc: int) -> None:
    cpu = with_storage(S370.reset(), b"")
    cpu.keys = Memory(BLOCK, 7, {PLACE >> 11: storage_key >> 1})
    cpu.gr[9] = Word(32, key)
    outcome = run("s370", "TPROT D1(B1),D2(B2)", cpu, **{"D2(B2).b": 9})
    assert isinstance(outcome, Next)
    assert int(outcome.state.psw.cc) == cc


def test_address_space_numbers_need_facility_translation_and_authority() -> None:
    def ends(**given: int) -> object:
        settings = {"dual_address_space": 1, "psw.extended": 1, "psw.dat": 1, "cr4": 0xABCD1234} | given
        outcome = run("s370", "EPAR R1", S370.reset(**{n.replace(".", "__"): v for n, v in settings.items()}))
        return outcome.vector if isinstance(outcome, Trap) else int(outcome.state.gr[0])  # type: ignore[union-attr]

    assert ends() == 0x1234
    assert ends(dual_address_space=0) == program.OPERATION
    assert ends(**{"psw.dat": 0}) == program.SPECIAL_OPERATION
    assert ends(**{"psw.problem": 1}) == program.PRIVILEGED_OPERATION
    assert ends(**{"psw.problem": 1, "cr0.extraction_authority": 1}) == 0x1234


# -- interrupts of the Model 67 ---------------------------------------------------------------------


def _interrupts() -> dict[str, Any]:
    return {one.name: one for one in machine("s360-67").interruptions}


def test_the_timer_interrupts_where_psw_bit_7_lets_it_and_stores_its_code() -> None:
    timer = _interrupts()["interval-timer interruption"]
    for extended, where, code in ((0, 26, "0080"), (1, 14, "0080")):
        cpu = Model67.reset(cr6__extended_psw=extended, psw__external=1, psw__problem=1)
        cpu.memory = Memory(ADDRESS, 8, {95: 0x40, 94: 0x20})  # the new PSW: address 2040
        assert int(timer.takes(cpu, {}))
        after = timer.enter(cpu, {})
        assert stored(after, where, 2) == code
        assert (int(after.psw.address), int(after.psw.problem)) == (0x2040, 0)
        cpu.psw.external = 0
        assert not int(timer.takes(cpu, {}))


@pytest.mark.parametrize(
    ("extended", "channel", "changes", "taken"),
    [
        (0, 2, {"psw.channels": 0b001000}, 1),
        (0, 2, {"psw.channels": 0b110111, "psw.io": 1}, 0),
        (0, 6, {"psw.io": 1}, 1),
        (0, 6, {"psw.channels": 0b111111}, 0),
        (1, 2, {"psw.io": 1, "cr4": 1 << 29}, 1),
        (1, 2, {"psw.io": 1, "cr4": ~(1 << 29) & 0xFFFFFFFF}, 0),
        (1, 2, {"cr4": 0xFFFFFFFF}, 0),
    ],
)
def test_a_channel_is_masked_by_the_psw_or_by_control_register_4(
    extended: int, channel: int, changes: dict[str, int], taken: int
) -> None:
    cpu = Model67.reset(cr6__extended_psw=extended, **{n.replace(".", "__"): v for n, v in changes.items()})
    device = {"channel": Word(5, channel), "device": Word(8, 0x1F), "csw": Word(64, 0x0C00)}
    interrupt = _interrupts()["input/output interruption"]
    assert int(interrupt.takes(cpu, device)) == taken
    after = interrupt.enter(cpu, device)
    assert stored(after, 64, 8) == "0000000000000C00"
    assert stored(after, 22 if extended else 58, 2) == f"{channel:02X}1F"
