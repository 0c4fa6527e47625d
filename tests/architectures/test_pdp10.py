"""The PDP-10s: what the literature says of them, derived; the VM map; traps."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from popek.architectures.pdp10 import MACHINES
from popek.architectures.pdp10.arithmetic import FLOATING
from popek.architectures.pdp10.encoding import encode, io_code, ks10_code
from popek.architectures.pdp10.ka10_state import Ka10
from popek.architectures.pdp10.ks10_state import Ks10
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelledError, Trap
from popek.kernel.words import Word

KA10, KS10 = MACHINES["pdp10-ka10"](), MACHINES["pdp10-ks10"]()
Classes = Mapping[str, Classification[Any]]
USER, USER_IO = 1 << 7, 1 << 6
# What stores the PC word: the User flag is in it.
CALLS = {"JSR", "JSP", "PUSHJ"}


def classified(machine: Machine[Any], *settings: str, only: str = "") -> Classes:
    classifier = Classifier(Subject.of(machine, "ring-deprivileging", settings))
    return {
        form: classifier.classify(instruction)
        for form, instruction in machine.instructions.items()
        if form.startswith(only)
    }


@pytest.fixture(scope="module")
def ka10() -> Classes:
    return classified(KA10)


@pytest.fixture(scope="module")
def ks10() -> Classes:
    return classified(KS10)


def mnemonics(classes: Classes, question: str) -> set[str]:
    return {c.instruction.mnemonic for c in classes.values() if getattr(c, question) is Truth.YES}


# -- KA10 ------------------------------------------------------------------------------------------


def test_theorem_1_is_refuted_on_the_ka10_by_jrst_1_and_others(ka10: Classes) -> None:
    # JRST 1 is Popek and Goldberg's example; the flag-restoring forms and the calls are the wider list.
    assert mnemonics(ka10, "critical") == {"JRST 1", "JRST 2", "JRST 3"} | CALLS


def test_theorem_3_holds_on_the_ka10_and_the_calls_do_not_spoil_it(ka10: Classes) -> None:
    assert mnemonics(ka10, "user_critical") == set()
    assert all(c.user_critical is Truth.NO for c in ka10.values())
    for name in CALLS:
        assert {c.user_sensitive for c in ka10.values() if c.instruction.mnemonic == name} == {Truth.NO}


def test_jrst_1_enters_user_mode_and_is_a_plain_jump_there(ka10: Classes) -> None:
    found = ka10["JRST 1, E"]
    assert found.truth("control_sensitive") is Truth.YES
    assert found.user_sensitive is Truth.NO
    executive = stepped(KA10, Ka10.reset(user_bound=3, user_base=5), "JRST 1, E", E=0o1234)
    assert (int(executive.flags.user), int(executive.pc)) == (1, 0o1234)
    assert (int(executive.bound), int(executive.base)) == (3, 5)
    user = Ka10.reset(flags=USER, bound=7, base=2)
    assert set(changed(user, stepped(KA10, user, "JRST 1, E", E=0o1234))) == {"pc"}


def test_input_output_halt_and_dismissal_are_privileged_on_the_ka10(ka10: Classes) -> None:
    privileged = mnemonics(ka10, "privileged")
    io = {"BLKI", "BLKO", "DATAI", "DATAO", "CONO", "CONI", "CONSZ", "CONSO"}
    assert privileged == io | {f"JRST {number:o}" for number in range(4, 16)}


def test_user_in_out_lifts_the_traps_of_the_ka10() -> None:
    for only, lifted in (("JRST", {"JRST 4", "JRST 10"}), ("CON", {"CONO", "CONI"}), ("DATA", {"DATAO"})):
        classes = classified(KA10, "USERIO=1", only=only)
        assert mnemonics(classes, "privileged") == set()
        assert mnemonics(classes, "user_critical") >= lifted


def test_with_user_in_out_open_the_calls_show_it_to_users() -> None:
    classifier = Classifier(Subject.of(KA10, None, ["USERIO=?"]))
    found = classifier.classify(KA10.instructions["JSP AC, E"])
    assert found.truth("user_resource_sensitive") is Truth.YES
    assert "flags.user_io" in found.components


def test_a_jrst_1_that_traps_leaves_the_list() -> None:
    mended = MACHINES["pdp10-ka10"]()
    jrst, halt = mended.instructions["JRST 1, E"], mended.instructions["JRST 4, E"]

    def trapping(cpu: Ka10, e: Word, function: int) -> None:
        if cpu.flags.user:
            halt.semantics(cpu, e, function=4)
        jrst.semantics(cpu, e, function=function)

    mended.instructions["JRST 1, E"] = attrs.evolve(jrst, semantics=trapping)
    classifier = Classifier(Subject.of(mended))
    found = classifier.classify(mended.instructions["JRST 1, E"])
    assert (found.privileged, found.critical) == (Truth.YES, Truth.NO)


# -- KS10 ------------------------------------------------------------------------------------------


def test_jrst_1_is_innocuous_on_the_ks10(ks10: Classes) -> None:
    assert ks10["JRST 1, E"].innocuous is Truth.YES


def test_theorem_1_is_refuted_on_the_ks10_all_the_same(ks10: Classes) -> None:
    assert mnemonics(ks10, "critical") == {"JRST 2", "JRST 5", "PXCT", "MAP"} | CALLS


def test_the_jumps_that_trap_on_the_ks10_are_those_of_the_literature(ks10: Classes) -> None:
    jumps = {name for name in mnemonics(ks10, "privileged") if name.startswith("JRST")}
    assert jumps == {"JRST 4", "JRST 6", "JRST 7", "JRST 14", "JRST 10", "JRST 12"}
    with_in_out = classified(KS10, "USERIO=1", only="JRST 1")
    assert {"JRST 10", "JRST 12", "JRST 14"} <= {c.instruction.mnemonic for c in with_in_out.values()}
    assert mnemonics(with_in_out, "privileged") == {"JRST 14"}


def test_theorem_3_on_the_ks10_hangs_on_map(ks10: Classes) -> None:
    assert mnemonics(ks10, "user_critical") == {"MAP"}
    trapping = classified(KS10, "MAP=traps", only="MAP")
    assert (mnemonics(trapping, "user_critical"), mnemonics(trapping, "privileged")) == (set(), {"MAP"})


def test_no_answer_is_left_open(ka10: Classes, ks10: Classes) -> None:
    for classes in (ka10, ks10):
        assert {c.critical for c in classes.values()} <= {Truth.YES, Truth.NO}
        assert {c.user_critical for c in classes.values()} <= {Truth.YES, Truth.NO}


def test_work_with_data_is_innocuous_on_both(ka10: Classes, ks10: Classes) -> None:
    both = mnemonics(ka10, "innocuous") & mnemonics(ks10, "innocuous")
    assert both >= {
        "MOVE", "MOVEM", "ADD", "AOJ", "JUMPE", "SKIPE", "EXCH", "PUSH", "POP", "POPJ", "JSA", "JRA", "JRST",
        "JFCL", "XCT", "LUUO", "MUUO",
    }  # fmt: skip


@pytest.mark.parametrize("machine", [KA10, KS10], ids=lambda machine: str(machine.name))
def test_what_is_critical_is_what_the_map_gets_wrong(
    machine: Machine[Any], request: pytest.FixtureRequest
) -> None:
    classes: Classes = request.getfixturevalue("ka10" if machine is KA10 else "ks10")
    keeper = Keeper(Subject.of(machine))
    faithful = {
        "MOVEM AC, E", "JRST E", "JRST 4, E", "JRST 10, E", "XCT E", "AOJN AC, E", "FADRB AC, E", "DFAD AC, E",
    }  # fmt: skip
    for form, found in classes.items():
        if found.critical is Truth.YES or form in faithful:
            expected = Status.HOLDS if form in faithful else Status.REFUTED
            promises = keeper.keeps(found.instruction)
            assert promises.fidelity.status is expected, form
            assert form not in faithful or promises.safety.status is Status.HOLDS, form


# -- single steps ----------------------------------------------------------------------------------


def outcome_of(machine: Machine[Any], state: Any, form: str, **parts: int) -> Any:
    instruction = machine.instructions[form]
    given = {f"operand {'(X)' if name == 'X' else name}": value for name, value in parts.items()}
    operands = {name: Word(word.width, given.get(name, 0)) for name, word in instruction.symbols().items()}
    return machine.step(instruction, state, operands)


def stepped(machine: Machine[Any], state: Any, form: str, **parts: int) -> Any:
    outcome = outcome_of(machine, state, form, **parts)
    assert isinstance(outcome, Next)
    return outcome.state


def changed(before: Any, after: Any) -> list[str]:
    return [name for name, word in before.words().items() if int(word) != int(after[name])]


@pytest.mark.parametrize("machine", [KA10, KS10], ids=lambda machine: str(machine.name))
def test_restoring_flags_in_user_mode_keeps_user_and_cannot_set_in_out(machine: Machine[Any]) -> None:
    word = (0o17603 & ~USER) << 23 | 0o4000
    user = machine.state.reset(flags=USER, ac1=word)
    after = stepped(machine, user, "JRST 2, (X)", X=1)
    assert int(after.flags.value) == (0o17603 | USER) & ~USER_IO
    executive = machine.state.reset(ac1=word | (USER | USER_IO) << 23, flags=0)
    entered = stepped(machine, executive, "JRST 2, (X)", X=1)
    assert (int(entered.flags.user), int(entered.flags.user_io), int(entered.pc)) == (1, 1, 0o4000)


def test_addresses_below_20_are_accumulators_even_where_users_are_moved() -> None:
    state = Ka10.reset(flags=USER, bound=0, base=0o10, ac3=0o123)
    assert int(stepped(KA10, state, "MOVE AC, E", AC=5, E=3).ac[5]) == 0o123
    state.memory = Memory(18, 36, {0o10 << 10 | 0o20: 0o456})
    assert int(stepped(KA10, state, "MOVE AC, E", AC=5, E=0o20).ac[5]) == 0o456
    beyond = outcome_of(KA10, state, "MOVE AC, E", AC=5, E=1 << 10)
    assert isinstance(beyond, Trap)
    assert beyond.memory


def test_pointers_carry_between_halves_on_the_ka10_only() -> None:
    for machine, expected in ((KA10, 0o2000000), (KS10, 0o1000000)):
        state = machine.state.reset(ac1=0o777777, ac0=5)
        assert int(stepped(machine, state, "PUSH AC, E", AC=1, E=0).ac[1]) == expected


def test_a_user_call_of_the_monitor_is_delivered_through_40_and_41_on_the_ka10() -> None:
    state = Ka10.reset(flags=USER, bound=3, base=0o20, pc=0o1000)
    state.memory = Memory(18, 36, {0o41: 0o264000 << 18 | 0o5000})
    trap = outcome_of(KA10, state, "CONO D, E", D=3, E=0o70)
    assert isinstance(trap, Trap)
    assert KA10.deliver is not None
    after = KA10.deliver(state, trap)
    assert int(after.memory.load(Word(18, 0o40))) == io_code("CONO", 3) << 23 | 0o70
    assert int(after.memory.load(Word(18, 0o5000))) == USER << 23 | 0o1001
    assert (int(after.pc), int(after.flags.user)) == (0o5001, 0)
    assert (int(after.bound), int(after.base), int(after.user_bound), int(after.user_base)) == (
        255,
        0,
        3,
        0o20,
    )
    assert int(KA10.invariant(after))


def test_what_41_may_hold_besides_jsr_is_not_guessed() -> None:
    trap = outcome_of(KA10, Ka10.reset(), "MUUO U, AC, E", U=1)
    assert KA10.deliver is not None
    with pytest.raises(NotModelledError, match="41"):
        KA10.deliver(Ka10.reset(), trap)


def test_an_executed_instruction_does_not_move_the_pc() -> None:
    state = Ks10.reset(pc=0o100)
    state.memory = Memory(20, 36, {0o3000: 0o265040_004000})
    executing = stepped(KS10, state, "XCT E", E=0o3000)
    assert (int(executing.executing), int(executing.ir), int(executing.pc)) == (1, 0o265040004000, 0o101)
    after = stepped(KS10, executing, "JSP AC, E", AC=1, E=0o4000)
    assert (int(after.ac[1]), int(after.executing)) == (0o101, 0)


def test_every_instruction_has_a_word_and_no_two_the_same() -> None:
    for machine in (KA10, KS10):
        words = [encode(i, dict.fromkeys(i.symbols(), 2)) for i in machine.instructions.values()]
        assert len({*words}) >= len(words) - 1  # PXCT and XCT are one opcode
        assert all(0 <= word < 1 << 36 for word in words)
    assert ks10_code("WRPI") == 0o70060 >> 6 << 4 | 0o14


# -- the VM map ------------------------------------------------------------------------------------


def guest_and_private(machine: Machine[Any], rng: random.Random) -> tuple[Any, Any]:
    """A guest in a small core, and a VMM that puts it at block or page 0o20."""
    user, last = rng.randrange(2), 7
    guest, private = machine.state.reset(last=last, pc=rng.getrandbits(18)), machine.state.reset()
    base = rng.randrange(last + 1) if user else 0
    if user:
        guest.base = Word(guest.base.width, base)
        guest.bound = Word(guest.bound.width, rng.randrange(12))
    guest.flags = Word(13, rng.getrandbits(13) & 0o17403 | user << 7)
    for i in range(16):
        guest.ac[i] = Word(36, rng.getrandbits(18) << 18 | rng.randrange((last + 2) << 9))
    if isinstance(private, Ka10):
        private.user_base = Word(8, 0o20)
        private.memory = private.memory.store(
            Word(18, 0o41), Word(36, 0o40)
        )  # a call of the monitor's stays there
    else:
        guest.paging = Word(1, 1)
        private.process_map = private.process_map.store(Word(11, 0), Word(20, 0o20))
    return guest, private


@pytest.mark.parametrize("machine", [KA10, KS10], ids=lambda machine: str(machine.name))
def test_an_innocuous_instruction_does_under_the_map_what_it_does_without(
    machine: Machine[Any], request: pytest.FixtureRequest
) -> None:
    classes: Classes = request.getfixturevalue("ka10" if machine is KA10 else "ks10")
    technique, rng, compared = machine.technique(), random.Random(1974), 0
    # SFM, UMOVE and their like change nothing but data, and trap all the same.
    plain = (c for c in classes.values() if c.innocuous is Truth.YES and c.privileged is Truth.NO)
    for instruction in (c.instruction for c in plain):
        for _ in range(15):
            guest, private = guest_and_private(machine, rng)
            operands = any_operands(rng, instruction)
            assert int(machine.invariant(guest) & technique.guest(guest) & technique.private(guest, private))
            hardware = technique.map(guest, private)
            assert int(machine.invariant(hardware) & technique.deprivileged(hardware))
            native, virtual = (machine.step(instruction, s, operands) for s in (guest, hardware))
            assert isinstance(native, Next) is isinstance(virtual, Next)
            if isinstance(native, Next) and isinstance(virtual, Next):
                expected = technique.map(native.state, private)
                # What was stored natively is there under the map too, where the map has it.
                for cell in native.state.memory.cells():
                    there = technique.guest_address(private, Word(expected.memory.address_width, cell))
                    assert int(expected.memory.load(there)) == int(virtual.state.memory.load(there))
                assert not changed(expected, virtual.state), instruction.form
                compared += 1
    assert compared > 150


def any_operands(rng: random.Random, instruction: Instruction) -> dict[str, Word]:
    while True:
        parts = {
            name: Word(
                word.width, rng.randrange(0o11000) if word.width == 18 else rng.getrandbits(word.width)
            )
            for name, word in instruction.symbols().items()
        }
        if int(instruction.valid(parts)):
            return parts


# -- floating point: which function of what, and where it goes (System Reference Manual, floating point arithmetic) --


@pytest.mark.parametrize(
    ("form", "operand", "accumulator", "storage"),
    [
        ("FADR AC, E", 0o2345, 0o777, 0o2345), ("FADRI AC, E", 0o1000 << 18, 0o777, 0o2345),
        ("FADRM AC, E", 0o2345, 0o1234, 0o777), ("FADRB AC, E", 0o2345, 0o777, 0o777),
        ("FDVR AC, E", 0o2345, 0o777, 0o2345),
    ],
)  # fmt: skip
@pytest.mark.parametrize("machine", [KA10, KS10], ids=lambda machine: str(machine.name))
def test_the_modes_of_floating_point(
    machine: Machine[Any], form: str, operand: int, accumulator: int, storage: int
) -> None:
    before = machine.state.reset(pc=0o100)
    before.ac[3] = Word(36, 0o1234)
    before.memory = before.memory.store(Word(before.memory.address_width, 0o1000), Word(36, 0o2345))
    address = FLOATING.index(form[:4]) << 72 | 0o1234 << 36 | operand
    before.floating = before.floating.store(Word(77, address), Word(40, 0b1111 << 36 | 0o777))
    outcome = machine.step(
        machine.instructions[form], before, {"operand AC": Word(4, 3), "operand E": Word(18, 0o1000)}
    )
    assert isinstance(outcome, Next)
    after = outcome.state
    found = int(after.memory.load(Word(after.memory.address_width, 0o1000)))
    assert (int(after.ac[3]), found) == (accumulator, storage)
    flags = after.flags
    assert [int(f) for f in (flags.overflow, flags.floating_overflow, flags.floating_underflow)] == [1, 1, 1]
    assert int(flags.no_divide) == (form == "FDVR AC, E")


def test_long_results_go_to_two_accumulators() -> None:
    before = KA10.state.reset(pc=0o100)
    before.ac[3] = Word(36, 0o1234)
    for name, result in (("FMPL", 0o11), ("FMPL, low word", 0o22)):
        address = FLOATING.index(name) << 72 | 0o1234 << 36
        before.floating = before.floating.store(Word(77, address), Word(40, result))
    outcome = KA10.step(
        KA10.instructions["FMPL AC, E"], before, {"operand AC": Word(4, 3), "operand E": Word(18, 0o1000)}
    )
    assert isinstance(outcome, Next)
    assert [int(outcome.state.ac[number]) for number in (3, 4)] == [0o11, 0o22]


@pytest.mark.parametrize(
    ("high", "low", "negative_high", "negative_low"),
    [
        (0, 0, 0, 0), (0o201400000000, 0o146000000000, 0o576400000000, 0o146000000000),
        (0o201400000000, 0o146000000001, 0o576377777777, 0o146777777777),
        (0o576400000000, 0o146777777777, 0o201377777777, 0o146000000001),
    ],
)  # fmt: skip
def test_a_double_number_is_negated_but_for_the_exponent_of_its_low_word(
    high: int, low: int, negative_high: int, negative_low: int
) -> None:
    """Of 27 bits of fraction the two's complement; a carry into the high word where they are 0."""
    before = KA10.state.reset(pc=0o100)
    before.ac[3] = Word(36, high)
    before.memory = before.memory.store(Word(18, 0o1000), Word(36, low))
    outcome = KA10.step(
        KA10.instructions["DFN AC, E"], before, {"operand AC": Word(4, 3), "operand E": Word(18, 0o1000)}
    )
    assert isinstance(outcome, Next)
    found = int(outcome.state.memory.load(Word(18, 0o1000)))
    assert (int(outcome.state.ac[3]), found) == (negative_high, negative_low)
