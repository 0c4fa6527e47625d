"""What a technique costs along a trace: how many instructions of a piece of kernel code trap, and whether they must.

A trace runs on numbers, from a state that the solver was asked for: the guest's own machine goes on after every
instruction, as a VMM that emulates what traps would have it, and the hardware is put into the image of each state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from popek.checks.classify import Classifier
from popek.checks.counterexample import differences
from popek.checks.runs import handed_over
from popek.checks.situation import plainest
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.outcome import Next, NotModelled
from popek.kernel.program import Line, line
from popek.kernel.state import Role
from popek.kernel.technique import Technique
from popek.solving.solver import Effort


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
    subject: Subject[Any],
    names: Sequence[str] | None = None,
) -> tuple[Cost, ...]:
    """The costs of the machine's pieces of kernel code whose instructions it has; of all of them by default."""
    machine, subject = subject.machine, attrs.evolve(subject, effort=Effort())
    known = {
        name: [line(machine, *step) for step in code]
        for name, code in machine.practice.code.items()
        if all(form in machine.instructions for form, _ in code)
    }
    if not known:
        return ()
    first = next(iter(known.values()))[0]
    start = plainest(subject, first.instruction, first.operands)
    if start is None:
        return ()
    return tuple(
        _cost(name, subject, lines, start) for name, lines in known.items() if names is None or name in names
    )


def _cost(
    name: str,
    subject: Subject[Any],
    lines: Sequence[Line],
    start: tuple[Any, Any],
) -> Cost:
    machine, technique = subject.machine, subject.technique
    classifier = Classifier(subject, components=False)
    guest, private = start
    fates: list[tuple[str, str]] = []
    necessary = needless = lost = 0
    for each in lines:
        native = machine.step(each.instruction, guest, each.words)
        image = technique.map(guest, private)
        hardware = machine.step(each.instruction, image, each.words)
        if not isinstance(native, Next):
            fates.append((str(each), "not completed by the guest's own machine"))
            break
        over = isinstance(hardware, Next) and bool(
            handed_over(machine, technique, image, hardware.state, private)
        )
        if isinstance(hardware, NotModelled):
            fates.append((str(each), "not modelled on the hardware"))
        elif not isinstance(hardware, Next) or over:
            innocuous = classifier.classify(each.instruction).innocuous is Truth.YES
            needless, necessary = needless + innocuous, necessary + (not innocuous)
            fates.append((str(each), "a needless trap" if innocuous else "a trap"))
        elif _lost(technique, guest, native.state, hardware.state, private):
            lost += 1
            fates.append((str(each), "completes, and does something else"))
        else:
            fates.append((str(each), "completes"))
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


__all__ = ["Cost", "costs"]
