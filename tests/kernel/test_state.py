"""Typed state: leaves with roles, registers with fields, groups, banks, and errors with near matches."""

from __future__ import annotations

import pytest

from popek.architectures.ia32.state import Ia32
from popek.kernel.configuration import SettingError, configure
from popek.kernel.instruction import Instruction, OperandKind, parse_form
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Fault, Next, NotModelled, NotModelledError, Trap, Vector
from popek.kernel.state import (
    Group,
    Register,
    Role,
    State,
    bank,
    bit,
    bits,
    group,
    leaves_with,
    memory,
    register,
    word,
)
from popek.kernel.words import Word, symbol
from popek.machines import machine, makers


class Flags(Register):
    z = bit(0)
    level = bits(5, 4, role=Role.RESOURCE)


class Segment(Group):
    base = word(16, role=Role.RESOURCE)
    flags = register(Flags, 8, role=Role.HIDDEN)


class Toy(State):
    mode = word(1, role=Role.MODE)
    flags = register(Flags, 8, reset=0x82)
    r = bank(("r0", "r1", "r2"), 8, resets={"r2": 7})
    code = group(Segment, roles={"flags.z": Role.MODE}, resets={"base": 0x100})
    data = group(Segment)
    memory = memory(address=8)


def test_fields_and_what_lies_between_them_are_leaves_in_order_with_their_roles() -> None:
    assert [(leaf.name, leaf.width, leaf.role) for leaf in Toy.leaves if leaf.component == "flags"] == [
        ("flags.z", 1, Role.GENERAL),
        ("flags[3:1]", 3, Role.GENERAL),
        ("flags.level", 2, Role.RESOURCE),
        ("flags[7:6]", 2, Role.GENERAL),
    ]


def test_roles_are_changed_in_every_list_of_leaves() -> None:
    for name in makers():
        state = machine(name).state
        changed = state.with_roles(lambda leaf, role: Role.GENERAL if role is Role.RESOURCE else role)
        for made in (state, changed):
            assert made.leaves == tuple(leaf for leaves in made.leaves_of.values() for leaf in leaves)
            assert all(made.leaf(leaf.name) is leaf for leaf in made.leaves)
        assert [leaf.name for leaf in changed.leaves] == [leaf.name for leaf in state.leaves]
        assert all(part.role is not Role.RESOURCE for part in changed.leaves)
        assert all(slot.role is not Role.RESOURCE for slot in changed.layout if slot.address)


def test_leaves_of_a_component_cover_each_bit_once_on_every_machine() -> None:
    for state in (Toy, Ia32):
        for slot in state.layout:
            if not slot.address:
                covered = [
                    b for x in state.leaves if x.component == slot.name for b in range(x.low, x.high + 1)
                ]
                assert sorted(covered) == list(range(slot.width)), slot.name


def test_a_group_takes_roles_and_resets_from_where_it_is_used() -> None:
    assert Toy.leaf("code.flags.z").role is Role.MODE
    assert Toy.leaf("data.flags.z").role is Role.HIDDEN
    assert Toy.leaf("code.flags.level").role is Role.RESOURCE
    assert int(Toy.reset()["code.base"]) == 0x100
    assert int(Toy.reset()["data.base"]) == 0


def test_the_reset_state_and_changes_to_it_by_name() -> None:
    state = Toy.reset(flags__level=2, r1=9)
    assert int(state.flags.value) == 0xA2
    assert [int(state.r[i]) for i in range(3)] == [0, 9, 7]
    assert int(Toy.reset().flags.level) == 0


def test_assigning_a_field_changes_these_bits_alone() -> None:
    state = Toy.reset()
    state.flags.level = 3
    assert int(state["flags"]) == 0xB2
    state.code.flags.z = 1
    assert int(state["code.flags"]) == 1
    assert int(state["data.flags"]) == 0


def test_a_bank_is_read_and_written_by_symbolic_number() -> None:
    state, number = Toy.reset(r0=5), symbol("n", 2)
    read = state.r[number]
    state.r[number] = Word(8, 1)
    for value in range(3):
        after = state.substituted({"n": Word(2, value)}, {})
        assert [int(after.r[i]) for i in range(3)] == [1 if i == value else [5, 0, 7][i] for i in range(3)]
        term = Toy.reset()
        term.r[0] = read
        assert int(term.substituted({"n": Word(2, value)}, {}).r[0]) == [5, 0, 7][value]


def test_a_copy_is_independent() -> None:
    state = Toy.reset()
    twin = state.copy()
    twin.r[0] = Word(8, 1)
    twin.memory = twin.memory.store(Word(8, 0), Word(8, 1))
    assert int(state.r[0]) == 0
    assert int(state.memory.load(Word(8, 0))) == 0


def test_a_symbolic_state_has_a_symbol_per_component() -> None:
    state = Toy.symbolic("'")
    assert repr(state.r[0].value) == "r0'"
    assert not state.memory.concrete


def test_what_is_undefined_is_0_on_numbers_or_as_given_and_a_symbol_otherwise() -> None:
    assert int(Toy.reset().undefined("x", 8)) == 0
    assert int(Toy.reset().with_undefined({"undefined x": 3}).undefined("x", 8)) == 3
    asked: dict[str, int] = {}
    assert int(Toy.reset().with_undefined({}, asked).undefined("y", 5)) == 0
    assert asked == {"undefined y": 5}
    assert repr(Toy.symbolic().undefined("x", 8).value) == "undefined x"


def test_wrong_names_and_widths_are_errors_with_near_matches() -> None:
    with pytest.raises(KeyError, match=r"no component 'flags\.levl'; near: .*flags\.level"):
        Toy.leaf("flags.levl")
    with pytest.raises(KeyError, match="no component"):
        Toy.reset(nothing_like_it=1)
    with pytest.raises(TypeError, match="r0 has 8 bits, not 9"):
        Toy.reset().with_changes({"r0": Word(9, 0)})


def test_leaves_are_found_by_role() -> None:
    assert [leaf.name for leaf in leaves_with(Toy, [Role.MODE])] == ["mode", "code.flags.z"]


# -- machine, instruction, outcome ----------------------------------------------------------------

TRAPPED = Vector("trap", 1, 8)


def toy() -> Machine[Toy]:
    kind = OperandKind("r", {"": 2}, valid=lambda parts: parts[""] < 3, spell=lambda parts: f"r{parts['']}")
    made = Machine(
        "toy",
        "A toy",
        Toy,
        supervisor=lambda s: s.mode == 0,
        user=lambda s: s.mode == 1,
        operands={"r": kind},
    )

    @made.instruction("MOVE r, r")
    def move(cpu: Toy, a: Word, b: Word) -> None:
        """The first := the second.

        Traps on r2, after the effect.
        """
        cpu.r[a] = cpu.r[b]
        if b == 2:
            raise Fault(TRAPPED, 5, keeps=True)

    @made.instruction("FAIL")
    def fail(cpu: Toy) -> None:
        cpu.r[0] = Word(8, 1)
        raise Fault(TRAPPED, 6)

    @made.instruction("LOST")
    def lost(cpu: Toy) -> None:
        raise NotModelledError("no idea")

    return made


def moved(a: int, b: int) -> object:
    made = toy()
    words = {"operand r": Word(2, a), "operand r 2": Word(2, b)}
    return made.step(made.instructions["MOVE r, r"], made.state.reset(r1=9), words)


def test_a_step_completes_with_the_new_state() -> None:
    outcome = moved(0, 1)
    assert isinstance(outcome, Next)
    assert int(outcome.state.r[0]) == 9


def test_a_fault_shows_the_state_of_before_unless_its_effect_is_kept() -> None:
    kept = moved(0, 2)
    assert isinstance(kept, Trap)
    assert int(kept.state.r[0]) == 7
    made = toy()
    undone = made.step(made.instructions["FAIL"], made.state.reset(), {})
    assert isinstance(undone, Trap)
    assert int(undone.state.r[0]) == 0
    assert undone.error_code is not None
    assert (undone.vector, int(undone.error_code), undone.memory) == (TRAPPED, 6, False)


def test_what_is_not_modelled_says_why() -> None:
    made = toy()
    assert made.step(made.instructions["LOST"], made.state.reset(), {}) == NotModelled("no idea")


def test_a_form_names_its_operands_and_fills_them_into_assembly() -> None:
    instruction = toy().instructions["MOVE r, r"]
    assert [operand.name for operand in instruction.operands] == ["r", "r 2"]
    assert instruction.assembly({"operand r": 1, "operand r 2": 2}) == "MOVE r1, r2"
    assert instruction.summary == "The first := the second."
    assert int(instruction.valid({"operand r": Word(2, 1), "operand r 2": Word(2, 3)})) == 0
    assert parse_form("MOVE x, y", {}) == ()


def test_operands_are_spelt_where_the_form_has_them() -> None:
    kinds = {
        name: OperandKind(name, {"": 4}, spell=lambda parts, name=name: name.replace("r", f"R{parts['']}"))  # type: ignore[misc]
        for name in ("r", "(r)", "r2", "r]")
    }
    for form, numbers, text in (
        ("MOVL (r), r", (1, 2), "MOVL (R1), R2"),
        ("MOVL r, (r)", (1, 2), "MOVL R1, (R2)"),
        ("mov rr[ r] = r", (3, 4), "mov rr[ R3] = R4"),
        ("r.r r , r, r2", (1, 2, 3), "r.r R1 , R2, R32"),
        ("ADD  r,#,r", (1, 2), "ADD  R1,#,R2"),
    ):
        operands = parse_form(form, kinds)
        made = Instruction(form, "", operands, "", lambda cpu: None)
        names = [name for operand in operands for name, _ in operand.part_names()]
        assert made.assembly(dict(zip(names, numbers, strict=True))) == text


def test_an_instruction_is_found_by_form_and_by_mnemonic_and_otherwise_near_matches_are_named() -> None:
    made = toy()
    assert [i.form for i in made.find("move")] == ["MOVE r, r"]
    assert [i.form for i in made.find("move  R, r")] == ["MOVE r, r"]
    with pytest.raises(UnknownNameError, match="unknown instruction 'MOV'; did you mean MOVE"):
        made.find("MOV")


def test_a_form_is_declared_once() -> None:
    with pytest.raises(ValueError, match="FAIL is declared twice"):
        toy().instruction("NEW", "FAIL")(lambda cpu: None)


def test_settings_are_read_by_number_label_or_left_open() -> None:
    pg74 = machine("pg74")
    assert configure(pg74, ["gmode=silent", "DROP=0"]).settings["GMODE"] == 0
    assert "LRA" not in configure(pg74, ["LRA=?"]).settings
    assert configure(pg74, ["LRA=0x1"]).settings["LRA"] == 1
    with pytest.raises(SettingError, match=r"GMODE is one of 0 .silent., 1 .traps., or . to leave it open"):
        configure(pg74, ["GMODE=2"])


def test_a_configuration_is_a_condition_on_states() -> None:
    pg74 = machine("pg74")
    traps, silent = pg74.state.reset(), pg74.state.reset(straps__gmode=0)
    assert [int(configure(pg74, ["GMODE=0"]).holds(pg74, state)) for state in (traps, silent)] == [0, 1]
    assert [int(configure(pg74, ["GMODE=?"]).holds(pg74, state)) for state in (traps, silent)] == [1, 1]
    ia32 = machine("ia32")
    denied = configure(ia32, [])
    assert int(denied.holds(ia32, ia32.state.reset(), mentioned=set())) == 1  # the ports are not looked at


def test_a_machine_without_techniques_says_so() -> None:
    with pytest.raises(UnknownNameError, match=r"technique of toy .*known: none"):
        toy().technique()
