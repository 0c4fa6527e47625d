"""The paper's machine with a delivery that is made to deceive, or with a form that changes something before it traps.

A delivery stores the PSW in E[0] and loads the next one from E[1].  `deliveries.toml` says what each machine should
get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, SUPERVISOR_CALL, Pg74
from popek.architectures.pg74.trap_and_emulate import leads_to_the_vmm
from popek.kernel.interruption import Interruption
from popek.kernel.left_open import LeftOpen
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError, Target, Trap, Vector
from popek.kernel.state import Role, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite

DOUBLE = Vector("double fault", 9)
OTHER_CALL = Vector("supervisor call", 3)  # another number, the same name
CODED = Vector("call", 5, ADDRESS)


class Armed(Pg74):
    """The paper's state, and a flag that no guest ever has set."""

    armed = word(1, role=Role.HIDDEN)
    handler = word(ADDRESS, role=Role.RESOURCE)


class Noting(Armed):
    """The same, and where the hardware notes of what it interrupts: a mode that decides nothing."""

    previous = word(ADDRESS, role=Role.MODE)


Made = Machine[Armed]
Deliver = Callable[[Armed, Trap[Armed]], Armed]


def stored(cpu: Armed) -> Armed:
    """E[0] := PSW."""
    cpu.memory = cpu.memory.store(Word(ADDRESS, 0), cpu.psw)
    return cpu


def exchange(before: Armed, trap: Trap[Armed]) -> Armed:
    """The paper's."""
    cpu = stored(trap.state.copy())
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
    return cpu


def go_on(before: Armed, trap: Trap[Armed]) -> Armed:
    """The guest goes on in supervisor mode."""
    cpu = stored(trap.state.copy())
    cpu.mode = Word(1, 0)
    return cpu


def go_on_if(when: Callable[[Armed, Trap[Armed]], bool], otherwise: Deliver = exchange) -> Deliver:
    """The same of some traps."""
    return lambda before, trap: (go_on if when(before, trap) else otherwise)(before, trap)


def base(deliver: Deliver = exchange, own: tuple[str, ...] = ("handler",), **changed: Any) -> Made:
    """The machine as it should be, but for its delivery.

    Args:
        own: what has values of the control program's in it.
        changed: of the technique, or (`interruptions`, `left_open`, `invariant`) of the machine.
    """
    paper: Any = build()
    plain = paper.technique()
    of_machine = {n: changed.pop(n) for n in ("interruptions", "left_open", "invariant") if n in changed}

    def image(guest: Armed, private: Armed) -> Armed:
        hardware: Armed = plain.map(guest, private)
        hardware.armed = Word(1, 0)
        hardware.handler = private.handler
        return hardware

    technique: Technique[Armed] = attrs.evolve(
        plain,
        map=image,
        guest=lambda guest: guest.armed == 0,
        owned=(*plain.owned, *own),
        shadowed=(*plain.shadowed, "handler"),
        private=lambda guest, private: plain.private(guest, private) & (private.relocation.base >= 16),
    )
    technique = attrs.evolve(technique, **changed)
    return attrs.evolve(
        paper,
        name="delivering",
        state=Armed,
        techniques={technique.name: technique},
        instructions={form: paper.instructions[form] for form in ("SVC", "LPSW a")},
        deliver=deliver,
        architecture=None,
        **of_machine,
    )


def form(machine: Made, name: str, semantics: Callable[..., None]) -> Made:
    """The machine with one more form."""
    machine.instruction(name)(semantics)
    return machine


def arm(cpu: Armed) -> None:
    """The flag is set, and a trap."""
    cpu.armed = Word(1, 1)
    raise Fault(SUPERVISOR_CALL, keeps=True)


def arm_in_user_mode(cpu: Armed) -> None:
    """Nothing; in user mode the flag is set, and a trap."""
    if cpu.mode == 1:
        cpu.armed = Word(1, 1)
        raise Fault(PRIVILEGED_TRAP, keeps=True)


# -- what a form changed --------------------------------------------------------------------------


def changed_counter() -> Made:
    """Where P is another than before the instruction the guest goes on in supervisor mode."""
    return base(go_on_if(lambda before, trap: bool(before.pc != trap.state.pc)))


def armed() -> Made:
    """Where the flag is set, too."""
    return form(base(go_on_if(lambda before, trap: bool(trap.state.armed == 1))), "ARM", arm)


def armed_against_the_invariant() -> Made:
    """The same, and the invariant says that the flag is never set."""
    deliver = go_on_if(lambda before, trap: bool(trap.state.armed == 1))
    return form(base(deliver, invariant=lambda state: state.armed == 0), "ARM", arm)


def armed_and_forgets() -> Made:
    """Where the flag is set P is not stored."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = trap.state.copy()
        psw = ite(cpu.armed == 1, Word(32, 0), cpu.psw)
        cpu.memory = cpu.memory.store(Word(ADDRESS, 0), psw)
        cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
        cpu.armed = Word(1, 0)
        return cpu

    return form(base(deliver), "ARM", arm_in_user_mode)


def armed_and_nothing() -> Made:
    """The flag is set, and nothing ever looks at it: the delivery clears it."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = exchange(before, trap)
        cpu.armed = Word(1, 0)
        return cpu

    return form(base(deliver), "ARM", arm_in_user_mode)


def looks_back() -> Made:
    """P := 0 and a trap; in supervisor mode the delivery stores P as it was before."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = trap.state.copy()
        psw = before.psw if before.mode == 0 else cpu.psw
        cpu.memory = cpu.memory.store(Word(ADDRESS, 0), psw)
        cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
        return cpu

    def lose(cpu: Armed) -> None:
        cpu.pc = Word(ADDRESS, 0)
        raise Fault(SUPERVISOR_CALL, keeps=True)

    return form(base(deliver), "LOSE", lose)


def _to_the_handler(before: Armed, trap: Trap[Armed]) -> Armed:
    cpu = stored(trap.state.copy())
    cpu.mode, cpu.pc = Word(1, 0), cpu.handler
    cpu.relocation.base, cpu.relocation.bound = Word(ADDRESS, 0), Word(ADDRESS, 255)
    return cpu


def a_handler_that_is_kept() -> Made:
    """Every trap goes to `handler`, which is the control program's."""
    return base(_to_the_handler, private=_keeps_a_handler)


def a_handler_that_is_written() -> Made:
    """A form writes it before it traps, and it is said to be where the hardware tells of a trap."""

    def go(cpu: Armed, a: Word) -> None:
        cpu.handler = a
        raise Fault(SUPERVISOR_CALL, keeps=True)

    return form(base(_to_the_handler, delivered=("handler",), private=_keeps_a_handler), "GO a", go)


def _keeps_a_handler(guest: Armed, private: Armed) -> Word:
    plain: Any = build().technique()
    kept: Word = plain.private(guest, private)
    return kept & (private.relocation.base >= 16) & (private.handler < 16)


# -- what a delivery does -------------------------------------------------------------------------


def overwrites() -> Made:
    """One of the control program's cells becomes 0, and P says which."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = trap.state.copy()
        new = cpu.memory.load(Word(ADDRESS, 1))
        cpu.memory = cpu.memory.store(cpu.pc & 15, Word(32, 0))
        cpu = stored(cpu)
        cpu.load_psw(new)
        return cpu

    return base(deliver)


def keeps_the_guests_register() -> Made:
    """To P = 5 in supervisor mode, and R is the guest's still."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = stored(trap.state.copy())
        cpu.mode, cpu.pc = Word(1, 0), Word(ADDRESS, 5)
        return cpu

    return base(deliver)


def a_fixed_place(place: int) -> Deliver:
    """Always to one place, in supervisor mode and with all of storage in reach."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = stored(trap.state.copy())
        cpu.mode, cpu.pc = Word(1, 0), Word(ADDRESS, place)
        cpu.relocation.base, cpu.relocation.bound = Word(ADDRESS, 0), Word(ADDRESS, 255)
        return cpu

    return deliver


def stops_at_seven() -> Made:
    """Where P is 7 the machine stops."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        if trap.state.pc == 7:
            raise Fault(DOUBLE)
        return exchange(before, trap)

    return base(deliver)


def stops_for_the_guest() -> Made:
    """A call is the guest's; in user mode it stops the machine, else it does nothing."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        if trap.vector != SUPERVISOR_CALL:
            return exchange(before, trap)
        if trap.state.mode == 1:
            raise Fault(DOUBLE)
        return trap.state.copy()

    return base(deliver, target=_calls_are_the_guests)


def _calls_are_the_guests(trap: Trap[Armed]) -> Target:
    return Target.GUEST if trap.vector == SUPERVISOR_CALL and not trap.memory else Target.VMM


def silent_at_seven() -> Made:
    """Where P is 7 the model does not say."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        if trap.state.pc == 7:
            raise NotModelledError("nobody knows")
        return exchange(before, trap)

    return base(deliver)


def undefined_distance() -> Made:
    """Nothing; in user mode P := P + K and a trap, and the manual leaves K open."""

    def lose(cpu: Armed) -> None:
        if cpu.mode == 1:
            cpu.pc = cpu.pc + cpu.undefined("K", ADDRESS)
            raise Fault(PRIVILEGED_TRAP, keeps=True)

    opened = (LeftOpen("what user mode adds to P", "the manual", values=("K",)),)
    return form(base(left_open=opened), "LOSE", lose)


def undefined_place() -> Made:
    """Where a trap goes the manual leaves open."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = exchange(before, trap)
        cpu.pc = cpu.undefined("K", ADDRESS) & 15
        return cpu

    opened = (LeftOpen("where a trap goes", "the manual", values=("K",)),)
    return base(deliver, left_open=opened)


def changes_what_it_is_given() -> Made:
    """The paper's delivery, which changes the state that it is given: that is nobody's else."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = stored(trap.state)
        cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
        return cpu

    return base(deliver)


def notes_a_mode() -> Made:
    """The paper's delivery, and P is noted in a leaf of the mode's that no mode depends on."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = exchange(before, trap)
        cpu["previous"] = trap.state.pc
        return cpu

    machine = base(deliver, own=("handler", "previous"), delivered=("previous",))
    known = machine.technique()
    shadowed = (*known.shadowed, "previous")
    return attrs.evolve(
        machine, state=Noting, techniques={known.name: attrs.evolve(known, shadowed=shadowed)}
    )


# -- what traps are told apart by -----------------------------------------------------------------


def _raising(fault: Callable[[], Fault]) -> Callable[[Armed], None]:
    def semantics(cpu: Armed) -> None:
        raise fault()

    return semantics


def another_number() -> Made:
    """Two vectors of one name."""
    machine = base(go_on_if(lambda before, trap: trap.vector.number == OTHER_CALL.number))
    return form(machine, "SVC2", _raising(lambda: Fault(OTHER_CALL, keeps=True)))


def another_level() -> Made:
    """One vector at two levels."""
    machine = base(go_on_if(lambda before, trap: trap.level == "B"))
    return form(machine, "SVCB", _raising(lambda: Fault(SUPERVISOR_CALL, keeps=True, level="B")))


def in_storage_and_not() -> Made:
    """One vector, of a storage reference and not."""
    machine = base(go_on_if(lambda before, trap: trap.memory and trap.vector == SUPERVISOR_CALL))
    return form(machine, "SVCM", _raising(lambda: Fault(SUPERVISOR_CALL, keeps=True, memory=True)))


def with_a_code_and_without() -> Made:
    """One vector, with an error code and without."""
    machine = base(go_on_if(lambda before, trap: trap.error_code is not None))
    machine = form(machine, "CALL", _raising(lambda: Fault(CODED, keeps=True)))

    def call(cpu: Armed, a: Word) -> None:
        raise Fault(CODED, a, keeps=True)

    return form(machine, "CALL a", call)


def one_is_the_guests() -> Made:
    """One vector, the guest's and the control program's."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        if trap.vector != SUPERVISOR_CALL:
            return exchange(before, trap)
        return go_on(before, trap) if trap.memory else trap.state.copy()

    machine = base(deliver, target=_calls_are_the_guests)
    return form(machine, "SVCM", _raising(lambda: Fault(SUPERVISOR_CALL, keeps=True, memory=True)))


def _interrupted(enter: Callable[[Armed], None], name: str) -> Made:
    def entered(state: Armed, given: Any) -> Armed:
        cpu = state.copy()
        enter(cpu)
        return cpu

    plain: Any = build().technique()
    return base(
        interruptions=(Interruption(name, lambda state, given: Word(1, 1), entered),),
        private=lambda guest, private: (
            plain.private(guest, private)
            & (private.relocation.base >= 16)
            & leads_to_the_vmm(guest, private, 3)
        ),
    )


def _tick(cpu: Armed) -> None:
    new = cpu.memory.load(Word(ADDRESS, 3))
    cpu.memory = cpu.memory.store(Word(ADDRESS, 2), cpu.psw)
    cpu.load_psw(new)


def an_interrupt_of_a_traps_name() -> Made:
    """The guest goes on in supervisor mode."""

    def enter(cpu: Armed) -> None:
        cpu.mode = Word(1, 0)

    return _interrupted(enter, "supervisor call")


def an_interrupt_overwrites() -> Made:
    """One of the control program's cells becomes 0, and P says which."""

    def enter(cpu: Armed) -> None:
        new = cpu.memory.load(Word(ADDRESS, 3))
        cpu.memory = cpu.memory.store(cpu.pc & 15, Word(32, 0)).store(Word(ADDRESS, 2), cpu.psw)
        cpu.load_psw(new)

    return _interrupted(enter, "tick")


def an_interrupt_stops() -> Made:
    """Where P is 7 the machine stops."""

    def enter(cpu: Armed) -> None:
        if cpu.pc == 7:
            raise Fault(DOUBLE)
        _tick(cpu)

    return _interrupted(enter, "tick")


# -- what a trap tells of its instruction ---------------------------------------------------------


def as_its_operand_says() -> Made:
    """Nothing; in user mode P := P + a and a trap."""

    def lose(cpu: Armed, a: Word) -> None:
        if cpu.mode == 1:
            cpu.pc = cpu.pc + a
            raise Fault(PRIVILEGED_TRAP, keeps=True)

    return form(base(), "LOSE a", lose)


def one_and_two() -> Made:
    """bound := 1, or := 2; in user mode one traps behind itself, and the other one where it is."""

    def one(cpu: Armed) -> None:
        if cpu.mode == 1:
            cpu.pc = cpu.pc + 1
            raise Fault(PRIVILEGED_TRAP, keeps=True)
        cpu.relocation.bound = Word(ADDRESS, 1)

    def two(cpu: Armed) -> None:
        if cpu.mode == 1:
            raise Fault(PRIVILEGED_TRAP, keeps=True)
        cpu.relocation.bound = Word(ADDRESS, 2)

    return form(form(base(), "ONE", one), "TWO", two)


def lengths_are_told() -> Made:
    """Two calls of unlike length, and the trap stores how long they were."""

    def deliver(before: Armed, trap: Trap[Armed]) -> Armed:
        cpu = exchange(before, trap)
        cpu.memory = cpu.memory.store(Word(ADDRESS, 2), trap.state.handler.zero_extend(32))
        return cpu

    def call(length: int) -> Callable[[Armed], None]:
        def semantics(cpu: Armed) -> None:
            cpu.pc, cpu.handler = cpu.pc + length - 1, Word(ADDRESS, length)
            raise Fault(CODED, keeps=True)

        return semantics

    return form(
        form(base(deliver, delivered=("handler",)), "CALL1", call(1)),
        "CALL2",
        call(2),
    )


MACHINES = {
    "as it should be": base,
    "changed counter": changed_counter,
    "armed": armed,
    "armed against the invariant": armed_against_the_invariant,
    "armed and forgets": armed_and_forgets,
    "armed and nothing": armed_and_nothing,
    "looks back": looks_back,
    "a handler that is kept": a_handler_that_is_kept,
    "a handler that is written": a_handler_that_is_written,
    "overwrites": overwrites,
    "keeps the guest's register": keeps_the_guests_register,
    "a fixed place": lambda: base(a_fixed_place(5)),
    "a fixed place of the guest's": lambda: base(a_fixed_place(32)),
    "stops at seven": stops_at_seven,
    "stops for the guest": stops_for_the_guest,
    "silent at seven": silent_at_seven,
    "undefined distance": undefined_distance,
    "undefined place": undefined_place,
    "changes what it is given": changes_what_it_is_given,
    "notes a mode": notes_a_mode,
    "another number": another_number,
    "another level": another_level,
    "in storage and not": in_storage_and_not,
    "with a code and without": with_a_code_and_without,
    "one is the guest's": one_is_the_guests,
    "an interrupt as it should be": lambda: _interrupted(_tick, "tick"),
    "an interrupt of a trap's name": an_interrupt_of_a_traps_name,
    "an interrupt overwrites": an_interrupt_overwrites,
    "an interrupt stops": an_interrupt_stops,
    "as its operand says": as_its_operand_says,
    "one and two": one_and_two,
    "lengths are told": lengths_are_told,
}
