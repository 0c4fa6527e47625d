"""What a technique costs along a trace: how many instructions of a piece of kernel code trap, and whether they must.

A trace runs on numbers, from a state that the solver was asked for: the guest's own machine goes on after every
instruction, as a VMM that emulates what traps would have it, and the hardware is put into the image of each state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from popek.checks.classify import Classifier
from popek.checks.counterexample import differences
from popek.checks.runs import handed_over
from popek.checks.situation import plainest
from popek.checks.verdict import Truth
from popek.kernel.configuration import Configuration
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled
from popek.kernel.program import Line
from popek.kernel.state import Role
from popek.kernel.technique import Technique
from popek.solving.solver import Effort

TRACES: Mapping[str, Sequence[tuple[str, Mapping[str, int]]]] = {
    "critical section": (
        ("PUSHFD|PUSHFQ", {}),
        ("CLI", {}),
        ("INC r32|INC r64", {}),
        ("ADD m32, r32|ADD m64, r64", {"operand m32.offset": 0x18000, "operand m64.offset": 0x18000}),
        ("POPFD|POPFQ", {}),
    ),
    "wait for interrupts": (("CLI", {}), ("STI", {}), ("HLT", {})),
    "context switch": (
        ("MOV r32, CR3|MOV r64, CR3", {}),
        ("MOV CR3, r32|MOV CR3, r64", {}),
        ("MOV r32, CR0|MOV r64, CR0", {}),
        ("CLTS", {}),
    ),
    "task priority": (("MOV CR8, r64", {}), ("NOP", {}), ("MOV CR8, r64", {})),
    "device": (("OUT imm8, AL", {"operand imm8": 0x20}), ("IN AL, imm8", {"operand imm8": 0x21})),
}
"""Pieces of kernel code, as forms with their operands; parts that are missing are the smallest.

`|` separates alternatives: what one machine spells so, another spells otherwise.
"""


@attrs.frozen
class Cost:
    """What was counted along a trace.

    Attributes:
        lines: the instructions, with what became of each on the hardware.
        necessary: traps of sensitive instructions, and of those that are not known to be innocuous.
        needless: traps of innocuous ones.
        lost: instructions that complete on the hardware and do something else than the guest expects.
    """

    trace: str
    lines: tuple[tuple[str, str], ...]
    necessary: int
    needless: int
    lost: int

    def to_json(self) -> dict[str, object]:
        """With what became of each instruction."""
        return {
            "trace": self.trace,
            "lines": [[line, fate] for line, fate in self.lines],
            "necessary_traps": self.necessary,
            "needless_traps": self.needless,
            "lost": self.lost,
        }


def costs(
    machine: Machine[Any],
    technique: Technique[Any],
    configuration: Configuration,
    names: Sequence[str] = tuple(TRACES),
) -> tuple[Cost, ...]:
    """The costs of the traces whose instructions the machine has."""
    effort = Effort()
    known = {name: lines for name in TRACES if (lines := _lines(machine, TRACES[name])) is not None}
    if not known:
        return ()
    first = next(iter(known.values()))[0]
    start = plainest(machine, technique, configuration, first.instruction, effort, first.operands)
    found = []
    for name in names:
        lines = known.get(name)
        if lines is None or start is None:
            continue
        found.append(_cost(name, machine, technique, configuration, lines, start, effort))
    return tuple(found)


def _lines(machine: Machine[Any], trace: Sequence[tuple[str, Mapping[str, int]]]) -> tuple[Line, ...] | None:
    lines = []
    for forms, operands in trace:
        known = [form for form in forms.split("|") if form in machine.instructions]
        if not known:
            return None
        instruction = machine.instructions[known[0]]
        smallest = {
            name: operand.kind.first.get(part, 0)
            for operand in instruction.inputs
            for part, (name, _) in zip(operand.kind.parts, operand.part_names(), strict=True)
        }
        given = {name: value for name, value in operands.items() if name in smallest}
        lines.append(Line(instruction, {**smallest, **given}))
    return tuple(lines)


def _cost(
    name: str,
    machine: Machine[Any],
    technique: Technique[Any],
    configuration: Configuration,
    lines: Sequence[Line],
    start: tuple[Any, Any],
    effort: Effort,
) -> Cost:
    classifier = Classifier(machine, technique, configuration, effort=effort, components=False)
    guest, private = start
    fates: list[tuple[str, str]] = []
    necessary = needless = lost = 0
    for line in lines:
        native = machine.step(line.instruction, guest, line.words)
        image = technique.map(guest, private)
        hardware = machine.step(line.instruction, image, line.words)
        if not isinstance(native, Next):
            fates.append((str(line), "not completed by the guest's own machine"))
            break
        over = isinstance(hardware, Next) and bool(
            handed_over(machine, technique, image, hardware.state, private)
        )
        if isinstance(hardware, NotModelled):
            fates.append((str(line), "not modelled on the hardware"))
        elif not isinstance(hardware, Next) or over:
            innocuous = classifier.classify(line.instruction).innocuous is Truth.YES
            needless, necessary = needless + innocuous, necessary + (not innocuous)
            fates.append((str(line), "a needless trap" if innocuous else "a trap"))
        elif _lost(technique, guest, native.state, hardware.state, private):
            lost += 1
            fates.append((str(line), "completes, and does something else"))
        else:
            fates.append((str(line), "completes"))
        guest = native.state
    return Cost(name, tuple(fates), necessary, needless, lost)


def _lost(technique: Technique[Any], guest: Any, native: Any, hardware: Any, private: Any) -> bool:
    """Whether what the guest sees is not what it expects, or the VMM misses a change of what it keeps."""
    kept = set(technique.shadowed)
    if any(d.name in kept for d in differences(guest, native)):
        return True
    expected = technique.map(native, private)
    general = {leaf.name for leaf in native.leaves if leaf.role is Role.GENERAL}
    if any(d.name in general for d in _leaves(expected, hardware)):
        return True
    for slot in native.layout:
        if slot.address and slot.role is Role.MEMORY:
            left, right = native.memories()[slot.name], hardware.memories()[slot.name]
            stored = [entry[0] for entry in right.stores if isinstance(entry, tuple)]
            for where in stored:
                home = technique.guest_address(private, where)
                if int(left.load(where)) != int(right.load(home)):
                    return True
    return False


def _leaves(a: Any, b: Any) -> list[Any]:
    return [leaf for leaf in a.leaves if int(a[leaf.name]) != int(b[leaf.name])]


__all__ = ["TRACES", "Cost", "costs"]
