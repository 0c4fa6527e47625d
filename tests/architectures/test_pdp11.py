"""The PDP-11/45: what the literature says of it, derived; the VM map; traps."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs
import pytest

from popek.architectures.pdp11 import MACHINES
from popek.architectures.pdp11.encoding import encode
from popek.architectures.pdp11.state import REGISTERS, Pdp11
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, NotModelledError, Trap
from popek.kernel.words import Word

MACHINE = MACHINES["pdp11-45"]()
TECHNIQUE = MACHINE.technique("ring-deprivileging")
KERNEL, SUPERVISOR, USER = 0, 1, 3
WHOLE_PAGE = 0o77406


@pytest.fixture(scope="module")
def classes() -> dict[str, Classification[Pdp11]]:
    classifier = Classifier(Subject.of(MACHINE, TECHNIQUE))
    return {form: classifier.classify(instruction) for form, instruction in MACHINE.instructions.items()}


def mnemonics(classes: Mapping[str, Classification[Pdp11]], question: str) -> set[str]:
    return {c.instruction.mnemonic for c in classes.values() if getattr(c, question) is Truth.YES}


def test_theorem_1_is_refuted_by_the_instructions_of_the_literature(
    classes: Mapping[str, Classification[Pdp11]],
) -> None:
    critical = mnemonics(classes, "critical")
    # RESET, SPL, RTI, RTT: Popek and Kline 1975 and later; the others with less certainty.
    assert critical == {"RESET", "SPL", "RTI", "RTT", "WAIT", "MFPI", "MFPD", "MTPI", "MTPD"}


def test_halt_is_the_one_privileged_instruction(classes: Mapping[str, Classification[Pdp11]]) -> None:
    assert mnemonics(classes, "privileged") == {"HALT"}
    assert classes["HALT"].truth("control_sensitive") is Truth.YES


def test_traps_by_design_and_work_with_data_are_innocuous(
    classes: Mapping[str, Classification[Pdp11]],
) -> None:
    innocuous = mnemonics(classes, "innocuous")
    assert innocuous >= {
        "EMT",
        "TRAP",
        "IOT",
        "BPT",
        "MOV",
        "ADD",
        "SUB",
        "TST",
        "JSR",
        "RTS",
        "SXT",
        "SOB",
        "BR",
    }


def test_registers_that_modes_share_make_the_previous_space_no_matter(
    classes: Mapping[str, Classification[Pdp11]],
) -> None:
    for name in ("MFPI", "MFPD", "MTPI", "MTPD"):
        assert classes[f"{name} R"].innocuous is Truth.YES
        assert classes[f"{name} SP"].critical is Truth.YES
        assert classes[f"{name} (R)"].critical is Truth.YES


def test_no_answer_is_left_open(classes: Mapping[str, Classification[Pdp11]]) -> None:
    assert {c.critical for c in classes.values()} <= {Truth.YES, Truth.NO}


def test_what_user_mode_hides_from_a_supervisor_is_silent_in_user_mode(
    classes: Mapping[str, Classification[Pdp11]],
) -> None:
    for name in ("RESET", "SPL n"):
        assert classes[name].truth("mode_sensitive") is Truth.YES
        assert classes[name].user_sensitive is Truth.NO
    # RTI sets mode bits and the register set in user mode too.
    assert classes["RTI"].user_sensitive is Truth.YES


def test_a_witness_replays_with_the_spl_of_kernel_mode(classes: Mapping[str, Classification[Pdp11]]) -> None:
    witness = classes["SPL n"].findings["mode_sensitive"].witness
    assert witness is not None
    assert [difference.name for difference in witness.differ] == ["ps.priority"]


def test_a_trap_added_takes_an_instruction_off_the_list() -> None:
    """A RESET that traps outside kernel mode is privileged: the verdict is made of the semantics."""
    mended = MACHINES["pdp11-45"]()
    reset, halt = mended.instructions["RESET"], mended.instructions["HALT"]

    def trapping(cpu: Pdp11) -> None:
        if cpu.ps.current != KERNEL:
            halt.semantics(cpu)
        reset.semantics(cpu)

    mended.instructions["RESET"] = attrs.evolve(reset, semantics=trapping)
    found = Classifier(Subject.of(mended, TECHNIQUE)).classify(mended.instructions["RESET"])
    assert (found.privileged, found.critical) == (Truth.YES, Truth.NO)


def test_what_is_critical_is_what_the_map_gets_wrong(classes: Mapping[str, Classification[Pdp11]]) -> None:
    keeper = Keeper(Subject.of(MACHINE, TECHNIQUE))
    faithful = {"MOV R, (R)", "HALT", "EMT t", "JSR R, (R)", "SOB R, o", "MFPI R"}
    for form, found in classes.items():
        if found.critical is Truth.YES or form in faithful:
            expected = Status.HOLDS if form in faithful else Status.REFUTED
            assert keeper.keeps(found.instruction).fidelity.status is expected, form


def test_every_instruction_has_words() -> None:
    for instruction in MACHINE.instructions.values():
        words = encode(instruction, dict.fromkeys(instruction.symbols(), 1))
        assert 1 <= len(words) <= 2
        assert all(0 <= word < 1 << 16 for word in words)


# -- single steps -----------------------------------------------------------------------------------


def machine_state(**changes: int) -> Pdp11:
    """Relocation off, everything else at its plain value."""
    return Pdp11.reset(**changes)


def run(state: Pdp11, form: str, **parts: int) -> Pdp11 | Trap[Pdp11] | NotModelled:
    instruction = MACHINE.instructions[form]
    given = {f"operand {name.replace('_', ' ')}": value for name, value in parts.items()}
    operands = {name: Word(word.width, given.get(name, 0)) for name, word in instruction.symbols().items()}
    outcome = MACHINE.step(instruction, state, operands)
    return outcome.state if isinstance(outcome, Next) else outcome


def test_rti_outside_kernel_mode_only_sets_mode_bits_and_keeps_the_priority() -> None:
    state = machine_state(ps=SUPERVISOR << 14 | SUPERVISOR << 12 | 5 << 5, sp=0o1000, usp=0o2000)
    state.memory = state.memory.store(Word(17, 0o400), Word(16, 0o4000))
    state.memory = state.memory.store(Word(17, 0o401), Word(16, 0o170017 | 2 << 5))
    after = run(state, "RTT")
    assert isinstance(after, Pdp11)
    assert int(after.ps.value) == 0o170017 | 5 << 5
    assert (int(after.pc), int(after.sp), int(after.saved_sp[1])) == (0o4000, 0o2000, 0o1004)


def test_undefined_mode_bits_are_reported_and_not_guessed() -> None:
    state = machine_state(sp=0o1000)
    state.memory = state.memory.store(Word(17, 0o401), Word(16, 2 << 14))
    assert isinstance(run(state, "RTI"), NotModelled)


def test_halt_traps_through_4_outside_kernel_mode_and_stops_within() -> None:
    stopped = run(machine_state(), "HALT")
    assert isinstance(stopped, Pdp11)
    assert int(stopped.running) == 0
    trap = run(machine_state(ps=USER << 14), "HALT")
    assert isinstance(trap, Trap)
    assert trap.vector.number == 0o4
    assert not trap.memory


def test_a_trap_is_delivered_on_the_stack_of_the_new_mode() -> None:
    state = machine_state(ps=USER << 14 | USER << 12 | 1, pc=0o600, sp=0o3000, ksp=0o2000)
    state.memory = Memory(17, 16, {0o30 >> 1: 0o1234, 0o32 >> 1: 0o340})
    trap = run(state, "EMT t", t=5)
    assert isinstance(trap, Trap)
    assert MACHINE.deliver is not None
    after = MACHINE.deliver(state, trap)
    assert (int(after.pc), int(after.ps.value), int(after.sp)) == (0o1234, 0o30340, 0o1774)
    assert int(after.memory.load(Word(17, 0o1776 >> 1))) == USER << 14 | USER << 12 | 1
    assert int(after.memory.load(Word(17, 0o1774 >> 1))) == 0o602
    assert int(after.saved_sp[2]) == 0o3000


def test_a_trap_that_cannot_be_delivered_says_so() -> None:
    state = machine_state(ps=USER << 14, ksp=1)
    trap = run(state, "BPT")
    assert isinstance(trap, Trap)
    assert MACHINE.deliver is not None
    with pytest.raises(NotModelledError, match="bus error"):
        MACHINE.deliver(state, trap)


# -- the VM map ------------------------------------------------------------------------------------

START, LAST = 0o1000, 0o1777


def private_state() -> Pdp11:
    """The VMM's own: its start, its priority, its other modes."""
    private = Pdp11.reset(ps=KERNEL << 14, ksp=0o3456, mme=1, pirq=1)
    private.space_par = private.space_par.store(Word(5, 0o30), Word(12, START))
    private.memory = Memory(17, 16, dict.fromkeys((0, START << 5, (START << 5) - 1), 21845))
    return private


def guest_state(rng: random.Random) -> Pdp11:
    mode = rng.choice((KERNEL, SUPERVISOR, USER))
    guest = Pdp11.reset(
        ps=mode << 14 | rng.randrange(16) | rng.randrange(8) << 5, mme=rng.randrange(2), last=LAST
    )
    for page in range(8):
        par = rng.randrange(LAST + 1)
        pdr = rng.choice(
            (WHOLE_PAGE, WHOLE_PAGE, rng.randrange(0o200) << 8 | rng.choice((0, 2, 6, 0o12, 0o16)))
        )
        guest.par = guest.par.store(Word(3, page), Word(12, par))
        guest.pdr = guest.pdr.store(Word(3, page), Word(16, pdr))
    for name in ("sp", *REGISTERS):
        guest[name] = Word(16, rng.randrange(0o200000) & ~1)
    cells = {rng.randrange((LAST + 1) << 5): rng.getrandbits(16) for _ in range(64)}
    guest.memory = Memory(17, 16, cells)
    return guest


def test_an_innocuous_instruction_does_under_the_map_what_it_does_without(
    classes: Mapping[str, Classification[Pdp11]],
) -> None:
    rng = random.Random(1974)
    private, compared = private_state(), 0
    for instruction in (c.instruction for c in classes.values() if c.innocuous is Truth.YES):
        for _ in range(12):
            guest = guest_state(rng)
            operands = any_operands(rng, instruction)
            hardware = TECHNIQUE.map(guest, private)
            assert int(MACHINE.invariant(guest) & TECHNIQUE.guest(guest) & TECHNIQUE.private(guest, private))
            assert int(MACHINE.invariant(hardware) & TECHNIQUE.deprivileged(hardware))
            native = MACHINE.step(instruction, guest, operands)
            virtual = MACHINE.step(instruction, hardware, operands)
            # A trap is never missed; a completion may be preceded by a needless one.
            assert not isinstance(virtual, Next) or isinstance(native, Next)
            if isinstance(native, Next) and isinstance(virtual, Next):
                expected = TECHNIQUE.map(native.state, private)
                assert seen(expected, guest, private) == seen(virtual.state, guest, private), instruction.form
                compared += 1
    assert compared > 200


def any_operands(rng: random.Random, instruction: Instruction) -> dict[str, Word]:
    while True:
        parts = {
            name: Word(word.width, rng.getrandbits(word.width))
            for name, word in instruction.symbols().items()
        }
        if int(instruction.valid(parts)):
            return parts


def seen(state: Pdp11, guest: Pdp11, private: Pdp11) -> dict[str, int]:
    """All words, the cells of the guest's core that a register points to, and some that are the VMM's."""
    shown = {name: int(word) for name, word in state.words().items()}
    start = START << 5
    for register in (*REGISTERS, "sp"):
        for address in (guest[register], guest[register] - 2):
            page = address[15:13]
            first = guest.par.load(page) if int(guest.mme) else page.zero_extend(12) << 7
            block = first + address[12:6].zero_extend(12)
            if int(block) <= LAST:
                cell = start + (int(block) << 5 | int(address[5:1]))
                shown[f"at {register} {cell}"] = int(state.memory.load(Word(17, cell)))
    for cell in private.memory.cells():
        shown[f"private {cell}"] = int(state.memory.load(Word(17, cell)))
    return shown


def test_relocation_may_be_off() -> None:
    machine: Machine[Pdp11] = MACHINE
    off = Classifier(Subject.of(machine, TECHNIQUE, ["mme=off"]))
    assert off.classify(machine.instructions["MOV (R), R"]).innocuous is Truth.YES
    assert off.classify(machine.instructions["RESET"]).critical is Truth.YES
