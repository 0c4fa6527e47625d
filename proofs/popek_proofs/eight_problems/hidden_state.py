"""Hidden state: what is lost when the VMM takes over and gives back with what instructions can save and load.

Of a segment register an instruction saves the selector, and loading the selector gives what the descriptor
table holds by then.  So a program that loads a segment register and changes the descriptor in the table still
uses the old one, until somebody saves and loads the register in between.  The program and the state are found by
the solver, over the semantics of the three instructions run one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from popek.checks.counterexample import Counterexample, Executed, ReplayError, differences
from popek.checks.runs import operating_mode
from popek.checks.verdict import Question, Truth
from popek.checks.witness import find_minimal
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import explore
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next
from popek.kernel.program import Line, run_lines
from popek.kernel.state import Role
from popek.kernel.technique import Technique
from popek.kernel.words import Word, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Answer, Effort

CLAIM = "a hidden part of a segment register does not survive a switch to the VMM"
STORY = (
    "A segment register is loaded and the descriptor changes in the table.  The register works as before, until "
    "somebody saves its selector and loads it again."
)
LOAD, STORE, READ = "MOV Sreg, r16", "MOV m32, r32", "MOV r32, m32"
FS, EAX, EBX, ECX = 4, 0, 3, 1
LOW = 0x40000
_OFFSET, _LENGTH = "offset of the store", 4


def hidden_state(
    machine: Machine[Any], technique: Technique[Any], configuration: Configuration, effort: Effort
) -> tuple[Truth, Counterexample[Any] | None, tuple[str, ...]]:
    """Whether a hidden part is lost, and the program that shows it.

    The answer is no where the technique saves and loads the hidden parts as they are, or there are none; unknown
    where the machine has not the instructions that the program is made of.

    Raises:
        ReplayError: a defect of popek.
    """
    if technique.keeps_hidden or not any(leaf.role is Role.HIDDEN for leaf in machine.state.leaves):
        return Truth.NO, None, ()
    if any(form not in machine.instructions for form in (LOAD, STORE, READ)):
        return Truth.UNKNOWN, None, ()
    load, store, read = (machine.instructions[form] for form in (LOAD, STORE, READ))
    state = machine.state.symbolic().with_changes(operating_mode(machine, configuration))
    widths = {name: width for operand in store.inputs for name, width in operand.part_names()}
    offset = symbol(_OFFSET, widths["operand m32.offset"])

    def step(instruction: Instruction, before: Any, values: dict[str, Word]) -> Any:
        outcome = machine.step(instruction, before, values)
        return outcome.state if isinstance(outcome, Next) else None

    def program() -> tuple[Any, Any] | None:
        """The end, undisturbed and after the register was loaded again, of the ways that complete."""
        loaded = step(load, state, _words(_load(load)))
        changed = loaded and step(store, loaded, {**_words(_store(store, 0)), "operand m32.offset": offset})
        undisturbed = changed and step(read, changed, _words(_read(read)))
        again = undisturbed and step(load, changed, _words(_load(load)))
        disturbed = again and step(read, again, _words(_read(read)))
        return disturbed and (undisturbed, disturbed)

    assumed = [
        machine.invariant(state),
        machine.supervisor(state),
        technique.guest(state),
        configuration.holds(machine, state),
    ]
    paths = explore(program, Pruner(effort), assume=assumed, budget=4000, unasked=lambda ends: ends is None)
    unknown = False
    for path, near in itertools.product([path for path in paths if path.result], (True, False)):
        undisturbed, disturbed = path.result or (state, state)
        conditions = [*assumed, path.condition, undisturbed.gpr[EBX] != disturbed.gpr[EBX]]
        if near:  # first with segments in low memory and a descriptor of the GDT, which are easier to set up
            bases = undisturbed.fs.base | disturbed.fs.base
            conditions += [bases < LOW, bases.truncate(16) == 0, undisturbed.fs.selector.ti == 0]
        question = Question(f"{machine.name}: {CLAIM}", conditions)
        answer, model, solver = question.ask(effort)
        unknown = unknown or answer is Answer.UNKNOWN
        if answer is Answer.SAT and model is not None and solver is not None:
            found = find_minimal(machine, load, question, solver, model, (state,), {})
            where = found.model(offset.term)
            witness = _witness(machine, found.states[0], tuple(_program(load, store, read, where)))
            return Truth.YES, witness, (LOAD,)
    return (Truth.UNKNOWN if unknown else Truth.NO), None, ()


def _load(load: Instruction) -> Line:
    return Line(load, {"operand Sreg": FS, "operand r16": EAX, "operand length": _LENGTH})


def _store(store: Instruction, where: int) -> Line:
    parts = {"operand m32.segment": 3, "operand m32.offset": where}
    return Line(store, {**parts, "operand r32": ECX, "operand length": _LENGTH})


def _read(read: Instruction) -> Line:
    parts = {"operand m32.segment": FS, "operand m32.offset": 0}
    return Line(read, {**parts, "operand r32": EBX, "operand length": _LENGTH})


def _words(line: Line) -> dict[str, Word]:
    return line.words


def _program(load: Instruction, store: Instruction, read: Instruction, where: int) -> Iterator[Line]:
    """The undisturbed program."""
    yield _load(load)
    yield _store(store, where)
    yield _read(read)


def _witness(machine: Machine[Any], before: Any, lines: tuple[Line, ...]) -> Counterexample[Any]:
    load, store, read = lines
    runs: list[Executed[Any]] = []
    for label, program in (
        ("undisturbed", lines),
        (
            "the VMM saves the selector and loads it again before the last instruction",
            (load, store, load, read),
        ),
    ):
        outcome, _ = run_lines(machine, program, before)
        runs.append(Executed(label, before, outcome, program))
    ends = [run.outcome for run in runs]
    if not all(isinstance(end, Next) for end in ends):
        raise ReplayError(f"the witness for {CLAIM!r} does not replay: {[run.describe() for run in runs]}")
    first, second = (end.state for end in ends if isinstance(end, Next))
    differ = tuple(d for d in differences(first, second) if d.name != "eip")
    if not any(d.name in ("ebx", "rbx") for d in differ):
        raise ReplayError(f"the witness for {CLAIM!r} does not replay: {[run.describe() for run in runs]}")
    return Counterexample(
        CLAIM,
        STORY,
        load.instruction,
        "; ".join(map(str, lines)),
        differences(machine.state.reset(), before),
        runs[0],
        runs[1],
        differ,
    )
