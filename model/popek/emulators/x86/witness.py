"""Witnesses on an emulator: what a run of the model depends on and does, and what the emulator says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from popek.architectures.x86.state import X86
from popek.emulators import load
from popek.emulators.differential import CaseT, Difference
from popek.emulators.witnesses import RunVerdict, WitnessRun, WitnessVerdict
from popek.emulators.x86.compare import Emulator
from popek.emulators.x86.deviations import StepT
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.program import Line, run_lines
from popek.kernel.words import Word

S = TypeVar("S", bound=X86)


@attrs.frozen
class Effect:
    """What a run does, whatever it starts from: the values it leaves behind.

    Attributes:
        end: how it ends.
        leaves: values of the leaves that change.
        cells: values of the cells that are stored, by memory and address.
    """

    end: str
    leaves: Mapping[str, int]
    cells: Mapping[tuple[str, int], int]


@attrs.frozen(eq=False)
class TracedRun:
    """A run of the model with what it read before it wrote there.

    Attributes:
        run: the run.
        effect: what it does.
        read: cells by memory and address.
        after: how it ends.
    """

    run: WitnessRun
    effect: Effect
    read: Mapping[str, Mapping[int, int]]
    after: Outcome[Any]

    def same(self, other: TracedRun) -> bool:
        """Whether both end alike and leave the same values wherever one of them changes something."""
        if (self.effect.end, self.effect.cells) != (other.effect.end, other.effect.cells):
            return False
        changed = {*self.effect.leaves, *other.effect.leaves}
        return all(self.value(name) == other.value(name) for name in changed)

    def value(self, name: str) -> int:
        """The value of a leaf in the end."""
        found = self.effect.leaves.get(name)
        return int(self.run.before[name]) if found is None else found


def traced(machine: Machine[Any], run: WitnessRun, memories: Sequence[str] = ("memory",)) -> TracedRun:
    """Run it on the model, and note what it reads of some memories."""
    read: dict[str, dict[int, int]] = {name: {} for name in memories}
    before = run.before.copy()
    for name, seen in read.items():
        old = before.memories()[name]

        def cell(address: Word, old: Memory = old, seen: dict[int, int] = seen) -> Word:
            value = old.load(address)
            seen[int(address)] = int(value)
            return value

        before._memories[name] = Memory(old.address_width, old.cell_width, cell)
    outcome, _ = run_lines(machine, run.lines, before)
    needed = {name: dict(cells) for name, cells in read.items()}  # what follows reads, too
    return TracedRun(run, effect_of(before, outcome), needed, outcome)


def effect_of(before: X86, outcome: Outcome[Any]) -> Effect:
    """What a run did."""
    match outcome:
        case NotModelled(reason):
            return Effect(f"not modelled: {reason}", {}, {})
        case Trap(vector, code, _, after):
            end = str(vector) + ("" if code is None else f"({int(code):#x})")
        case Next(after):
            end = "completes"
    leaves = {
        leaf.name: int(after[leaf.name])
        for leaf in after.leaves
        if int(after[leaf.name]) != int(before[leaf.name])
    }
    cells = {
        (name, address): int(content.load(Word(content.address_width, address)))
        for name, content in after.memories().items()
        for address in _stored(content, before.memories()[name])
    }
    return Effect(end, leaves, cells)


def _stored(content: Memory, before: Memory) -> Iterator[int]:
    if isinstance(content.root, Mapping):  # stores on numbers go into the root at once
        old = before.root if isinstance(before.root, Mapping) else {}
        yield from (a for a, value in content.root.items() if old.get(a, 0) != value)
    for entry in content.stores[len(before.stores) :]:
        if isinstance(entry, Block):
            yield from range(int(entry.destination), int(entry.destination) + int(entry.cells))
        else:
            yield int(entry[0])


def measured(run: WitnessRun, lengths: Sequence[int]) -> WitnessRun:
    """The run with its instructions as long as they are."""
    lines = tuple(
        Line(line.instruction, {**line.operands, "operand length": length})
        for line, length in zip(run.lines, lengths, strict=True)
    )
    return attrs.evolve(run, lines=lines)


def with_plain(run: WitnessRun, name: str, plain: X86) -> WitnessRun:
    """The run with one register or table register as in the harness's plain state."""
    before = run.before.copy()
    for component, word in plain.words().items():
        if component == name or component.startswith(f"{name}."):
            before[component] = word
    return attrs.evolve(run, before=before)


def joined(cells: Mapping[int, int]) -> list[tuple[int, bytes]]:
    """Bytes that follow one another, together."""
    found: list[tuple[int, bytes]] = []
    for address, value in sorted(cells.items()):
        if found and found[-1][0] + len(found[-1][1]) == address:
            found[-1] = (found[-1][0], found[-1][1] + bytes([value]))
        else:
            found.append((address, bytes([value])))
    return found


def unlike(real: X86, wanted: X86, reasons: Mapping[str, str]) -> str:
    """What a harness cannot set up as a run wants it, with the reasons that are known."""
    names = [leaf.name for leaf in real.leaves if int(real[leaf.name]) != int(wanted[leaf.name])]
    names = names or ["what it reads elsewhere"]
    known = {reasons.get(name) or reasons.get(name.partition(".")[0]) for name in names} - {None}
    why = "; ".join(sorted(str(reason) for reason in known))
    return f"{', '.join(names)} cannot be as in the witness" + (f" ({why})" if why else "")


@attrs.frozen
class Refused:
    """A run that cannot be set up, and why."""

    label: str
    reason: str

    @property
    def verdict(self) -> RunVerdict:
        """It cannot be set up."""
        return RunVerdict(self.label, WitnessVerdict.IMPOSSIBLE, (self.reason,))


@attrs.frozen(eq=False)
class OneInstruction(Generic[CaseT]):
    """A run of one instruction that an emulator is asked about."""

    label: str
    case: CaseT


Prepared = OneInstruction[CaseT] | Refused | Callable[[], RunVerdict]
"""A run: one instruction, one that cannot be set up, or a program that runs by itself."""


def verdicts(
    witnesses: Sequence[Sequence[Prepared[CaseT]]],
    compare: Callable[[list[CaseT]], Sequence[Difference[CaseT] | None]],
    against: Emulator[CaseT, StepT],
) -> list[list[RunVerdict]]:
    """What an emulator says of the runs of each witness; all runs of one instruction go there together."""
    single = [run for several in witnesses for run in several if isinstance(run, OneInstruction)]
    differences = compare([run.case for run in single])
    found = {id(run): difference for run, difference in zip(single, differences, strict=True)}

    def verdict(run: Prepared[CaseT]) -> RunVerdict:
        if isinstance(run, Refused):
            return run.verdict
        if isinstance(run, OneInstruction):
            return _single(run.label, found[id(run)], against.name)
        return run()

    return [[verdict(run) for run in several] for several in witnesses]


def _single(label: str, difference: Difference[Any] | None, against: str) -> RunVerdict:
    if difference is None:
        return RunVerdict(label, WitnessVerdict.CONFIRMED)
    if "setup-failed" in difference.observed:
        reason = f"{against} refuses to load the state ({difference.observed.removesuffix(' setup-failed')})"
        return RunVerdict(label, WitnessVerdict.IMPOSSIBLE, (reason,))
    details = difference.details or (f"{difference.expected}, {difference.observed}",)
    if difference.deviation is None:
        return RunVerdict(label, WitnessVerdict.DIFFERS, details)
    return RunVerdict(
        label, WitnessVerdict.DEVIATES, (*details, f"a known deviation: {difference.deviation}")
    )


def on_emulators(
    confirm: Callable[[Machine[Any], Sequence[Sequence[WitnessRun]], Any], list[list[RunVerdict]]],
    emulators: Mapping[str, str],
) -> Callable[[Machine[Any], Sequence[Sequence[WitnessRun]], str], list[list[RunVerdict]]]:
    """The same with an emulator's name, given where each is: "module:name", loaded where it is asked for."""

    def by_name(
        machine: Machine[Any], runs: Sequence[Sequence[WitnessRun]], against: str
    ) -> list[list[RunVerdict]]:
        return confirm(machine, runs, load(emulators[against]))

    return by_name
