"""Set x86-64 witnesses up on the step harness, and run them on an emulator.

A case of the harness is a saved state, so it takes a witness's state as it is, hidden parts included; but its memory is
the arena, with pages for users and for supervisors, and its own tables and stacks must be somewhere.  So what a run
does not depend on is given the harness's plain value, and its code, its stack and its memory operand are moved to
where the arena has them: each change is kept where every run of the witness does the same, but for the places.  In the
end the model runs from the state that the harness will really be in, and a run that does something else there is
refused, with the components that could not be set up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.x86_64.state import X64
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.witnesses import Harness, RunVerdict, WitnessRun
from popek.emulators.x86.expectation import OutsideError
from popek.emulators.x86.witness import (
    OneInstruction,
    Prepared,
    Refused,
    TracedRun,
    joined,
    measured,
    on_emulators,
    traced,
    unlike,
    verdicts,
    with_plain,
)
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelled
from popek.kernel.program import Line
from popek.kernel.words import Word

from .assembly import assemble_all, assembly_text
from .cases import X64Case
from .compare import BOCHS, X64Emulator, compare, exists_in_compatibility_mode, prepare
from .expectation import UNOBSERVED, initial_state
from .step import (
    ARENA_BYTES,
    KERNEL_DATA,
    RESERVED_SELECTOR,
    TEMPLATE,
    USER_DATA,
    X64StepCase,
    plain_state,
    segment_descriptor,
)

_PAGES: Final = ("reserved", "read_only")
_PLAIN_FIRST: Final = (
    *(*_PAGES, "cr3", "idtr", "ldtr", "tr", "efer", "msr", "xcr0", "pkru", "dr6", "dr7"),
    *("gs", "fs", "es", "ds", "ss", "gdtr", "cs", "cr0", "cr4", "cr2", "rflags"),
)
_TABLES: Final = ("gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit", "tr.base", "tr.limit", "tr.rights")
_SPAN: Final = 0x80
_REASONS: Final[Mapping[str, str]] = {
    **UNOBSERVED,
    "reserved": "the arena has pages for users and for supervisors",
    "halted": "a processor that has halted runs nothing",
}


@attrs.frozen
class _Move:
    """Something of a run that lies elsewhere: in memory from `old` on, so far behind."""

    old: int
    new: int

    def of(self, address: int) -> int:
        """Where a byte lies after it."""
        return address - self.old + self.new if self.old - _SPAN <= address < self.old + _SPAN else address


def _moved(found: TracedRun, leaf: str | None, move: _Move) -> TracedRun:
    """What the run is to do once it was moved."""
    leaves = dict(found.effect.leaves)
    if leaf is not None and leaf in leaves:
        leaves[leaf] = leaves[leaf] + move.new - move.old & (1 << 64) - 1
    cells = {
        (name, move.of(at) if name == "memory" else at): v for (name, at), v in found.effect.cells.items()
    }
    run = found.run
    if leaf is not None:
        before = run.before.copy()
        before[leaf] = move.new
        run = attrs.evolve(run, before=before)
    return attrs.evolve(found, run=run, effect=attrs.evolve(found.effect, leaves=leaves, cells=cells))


def _with_move(run: WitnessRun, leaf: str | None, part: str | None, move: _Move) -> WitnessRun:
    """The run with a register or a memory operand elsewhere, and what lay there."""
    before = run.before.copy()
    old: Memory = before.memory

    def cell(address: Word) -> Word:
        at = int(address)
        inside = move.new - _SPAN <= at < move.new + _SPAN
        return old.load(Word(64, at - move.new + move.old & (1 << 64) - 1) if inside else address)

    before.memory = Memory(64, 8, cell)
    if leaf is not None:
        before[leaf] = move.new
    lines = run.lines
    if part is not None:
        lines = tuple(Line(line.instruction, {**line.operands, part: move.new}) for line in lines)
    return attrs.evolve(run, before=before, lines=lines)


@attrs.frozen
class _Place:
    """A register or a part of an operand that says where something lies, and where each run can have it."""

    leaf: str | None
    part: str | None
    new: tuple[int, ...]

    def of(self, run: WitnessRun) -> int:
        """Where a run has it."""
        return int(run.before[self.leaf]) if self.leaf else run.lines[0].operands[str(self.part)]


class _Placing:
    """The runs of one witness on their way to the harness."""

    def __init__(self, machine: Machine[X64], runs: Sequence[WitnessRun]) -> None:
        self.machine = machine
        self.runs = list(runs)
        self.wanted = [traced(machine, run) for run in runs]

    def try_plain(self, name: str, plains: Sequence[X64]) -> None:
        """A component as in the plain state, if no run depends on it, or what of it no run depends on."""
        if not self.try_places((), plains, (name,)):
            for part in plains[0].words():
                if part.startswith(f"{name}."):
                    self.try_places((), plains, (part,))

    def try_places(self, places: Sequence[_Place], plains: Sequence[X64], names: Sequence[str]) -> bool:
        """Registers and memory operands where the arena has room, and some components plain with that."""
        runs, wanted = list(self.runs), list(self.wanted)
        for place in places:
            for number, (run, found) in enumerate(zip(runs, wanted, strict=True)):
                move = _Move(place.of(run), place.new[number])
                runs[number] = _with_move(run, place.leaf, place.part, move)
                wanted[number] = _moved(found, place.leaf, move)
        for name in names:
            runs = [with_plain(run, name, plain) for run, plain in zip(runs, plains, strict=True)]
        if not self._alike(runs, wanted):
            return False
        self.runs, self.wanted = runs, wanted
        return True

    def _alike(self, changed: Sequence[WitnessRun], wanted: Sequence[TracedRun]) -> bool:
        return all(traced(self.machine, run).same(found) for run, found in zip(changed, wanted, strict=True))


def cases_of(machine: Machine[X64], runs: Sequence[WitnessRun]) -> list[OneInstruction[X64Case] | Refused]:
    """The runs of one witness as cases of the harness.

    Raises:
        BochsError: nasm is missing.
    """
    if any(len(run.lines) != 1 for run in runs):
        return [Refused(run.label, "the harness runs one instruction at a time") for run in runs]
    keys, modes = [], []
    for run in runs:
        (line,) = run.lines
        long = bool(run.before.long)
        if not long and not exists_in_compatibility_mode(line.instruction):
            return [Refused(one.label, "the form does not exist in compatibility mode") for one in runs]
        modes.append(long)
        keys.append((long, assembly_text(line.instruction, line.operands, long=long)))
    try:
        codes = assemble_all(keys)
    except BochsError as error:
        return [Refused(run.label, f"no encoding: {error}") for run in runs]
    sized = [measured(run, [len(codes[key])]) for run, key in zip(runs, keys, strict=True)]
    levels = [int(run.before.cpl) for run in sized]
    plains = [
        initial_state(X64StepCase(codes[key], plain_state(level, long=long)))
        for key, level, long in zip(keys, levels, modes, strict=True)
    ]
    placing = _Placing(machine, sized)
    data = USER_DATA if max(levels) == 3 else KERNEL_DATA
    places = [
        *(_Place(leaf, None, tuple(int(plain[leaf]) for plain in plains)) for leaf in ("rip", "rsp")),
        *(
            _Place(None, part, (data,) * len(sized))
            for part in sized[0].lines[0].operands
            if part.endswith(".offset")
        ),
    ]
    # Which pages are kept from whom goes with where things lie.
    if not placing.try_places(places, plains, _PAGES):
        for place in places:
            placing.try_places([place], plains, ())
    for name in _PLAIN_FIRST:
        placing.try_plain(name, plains)
    shapes = zip(placing.runs, placing.wanted, levels, modes, strict=True)
    return [_case(machine, run, found, level, long) for run, found, level, long in shapes]


def _case(
    machine: Machine[X64], run: WitnessRun, wanted: TracedRun, level: int, long: bool
) -> OneInstruction[X64Case] | Refused:
    (line,) = run.lines
    before, plain = run.before, plain_state(level, long=long)
    registers = {name: int(before[name]) for name in plain if int(before[name]) != plain[name]}
    read = traced(machine, run).read["memory"]
    different = {at: byte for at, byte in read.items() if at >= ARENA_BYTES or TEMPLATE[at] != byte}
    if any(at >= ARENA_BYTES for at in different):
        return Refused(run.label, f"memory that it reads lies above {ARENA_BYTES:#x}")
    memory = joined(different)
    gate = int(before["gdtr.base"]) + RESERVED_SELECTOR
    if "gdtr.base" in registers and gate + 8 <= ARENA_BYTES and not {*range(gate, gate + 8)} & {*read}:
        memory.append((gate, segment_descriptor(0, 0xFFFFF, 0xA09B00)))
    operands = {name: value for name, value in line.operands.items() if name != "operand length"}
    case = X64Case(line.instruction.form, operands, level, long, registers, tuple(memory))
    try:
        ready = prepare(machine, BOCHS, case)
    except OutsideError as error:
        return Refused(run.label, str(error))
    if isinstance(ready, NotModelled):
        return Refused(run.label, f"not modelled: {ready.reason}")
    real = initial_state(ready.step)
    real._undefined = before._undefined
    if not traced(machine, attrs.evolve(run, before=real)).same(wanted):
        return Refused(run.label, unlike(real, before, _REASONS))
    own = {name.partition(".")[0] for name in registers if name in _TABLES}
    trap = ready.expected.kind == "trap"
    if (trap and own) or (level > 0 and "tr" in own):
        return Refused(run.label, "its own tables are not those through which the step ends")
    return OneInstruction(run.label, case)


def confirm(
    machine: Machine[X64], witnesses: Sequence[Sequence[WitnessRun]], against: X64Emulator
) -> list[list[RunVerdict]]:
    """Run the runs of each witness on an emulator and compare everything that can be seen.

    Raises:
        BochsError: Bochs or nasm is missing.
    """

    def followed(run: OneInstruction[X64Case] | Refused) -> Prepared[X64Case]:
        if isinstance(run, Refused):
            return run
        try:
            prepare(machine, against, run.case)
        except OutsideError as error:
            return Refused(run.label, str(error))
        return run

    runs = [[followed(run) for run in cases_of(machine, several)] for several in witnesses]
    return verdicts(runs, lambda cases: compare(cases, against=against, machine=machine), against)


EMULATORS = {
    "bochs": "popek.emulators.x86_64.compare:BOCHS",
    "unicorn": "popek.emulators.x86_64.unicorn:UNICORN",
}
HARNESS = Harness(tuple(EMULATORS), on_emulators(confirm, EMULATORS))
