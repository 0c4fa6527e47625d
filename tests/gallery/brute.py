"""Classes, promises and premises of a tiny machine by going through all its states: no solver, no symbols.

What each word means is written down here once more, from the definitions, on plain numbers.

    python tests/gallery/brute.py 5000     as many machines of the grammar, compared with what the solver finds
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tiny

from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word


class At(NamedTuple):
    """A state as numbers; `cells` from cell 0 on."""

    mode: int
    base: int
    bound: int
    acc: int
    small: int
    cells: tuple[int, int, int, int]


class End(NamedTuple):
    """How a run ends: the trap's name, or none; and the state."""

    trap: str
    at: At


OWNED = ("mode", "base", "bound")
CELLS = tuple(itertools.product((0, 1), repeat=4))
STATES = tuple(At(*words) for words in itertools.product((0, 1), range(4), range(4), (0, 1), (0, 1), CELLS))
GUESTS = tuple(s for s in STATES if s.small == 1)
PRIVATE = tuple(itertools.product((0, 1), repeat=2))  # the control program's cells 0 and 1
Table = dict[tuple[At, int], End]


def table(machine: Machine[tiny.Tiny]) -> Table:
    """Every run."""
    instruction = machine.instructions["DO x"]
    found: Table = {}
    for state in STATES:
        start = tiny.Tiny.reset(mode=state.mode, base=state.base, bound=state.bound, acc=state.acc, small=state.small)
        start.memory = Memory(2, 1, dict(enumerate(state.cells)))
        for x in (0, 1):
            outcome = machine.step(instruction, start, {"operand x": Word(1, x)})
            assert isinstance(outcome, Next | Trap)
            after = outcome.state
            cells = tuple(int(after.memory.load(Word(2, a))) for a in range(4))
            words = (int(after[name]) for name in At._fields[:-1])
            trap = outcome.vector.name if isinstance(outcome, Trap) else ""
            found[state, x] = End(trap, At(*words, cells))  # type: ignore[arg-type]
    return found


def image(guest: At, private: tuple[int, int]) -> At:
    """f(S, P)."""
    left = 2 - guest.base if guest.base < 2 else 0
    cells = (*private, guest.cells[0], guest.cells[1])
    return At(1, (guest.base + 2) % 4, min(guest.bound, left), guest.acc, 0, cells)


def moved(state: At, offset: int) -> At:
    """The state moved in storage."""
    cells = tuple(state.cells[(a - offset) % 4] for a in range(4))
    return state._replace(base=(state.base + offset) % 4, cells=cells)  # type: ignore[arg-type]


def classes(runs: Table) -> dict[str, bool]:
    """Of 1974, as the definitions say."""
    done = {key: end.at for key, end in runs.items() if not end.trap}
    user = {key: at for key, at in done.items() if key[0].mode == 1}

    def control(some: Iterable[tuple[tuple[At, int], At]]) -> bool:
        return any(getattr(s, n) != getattr(at, n) for (s, _), at in some for n in OWNED)

    def location(some: Iterable[tuple[tuple[At, int], At]]) -> bool:
        for ((s, x), at), offset in itertools.product(some, range(4)):
            other = done.get((moved(s, offset), x))
            if other is not None and moved(at, offset) != other:
                return True
        return False

    def twin(s: At) -> At:
        return s._replace(mode=0)

    mode = any(
        (twin(s), x) in done and done[twin(s), x]._replace(mode=0) != at._replace(mode=0) for (s, x), at in user.items()
    )
    traps = [key for key in runs if key[0].mode == 1 and runs[key].trap]
    found = {
        "privileged": not user and any((twin(s), x) in done for s, x in traps),
        "control_sensitive": control(done.items()),
        "location_sensitive": location(done.items()),
        "mode_sensitive": mode,
        "user_control_sensitive": control(user.items()),
        "user_location_sensitive": location(user.items()),
    }
    found["sensitive"] = any(found[n] for n in ("control_sensitive", "location_sensitive", "mode_sensitive"))
    found["user_sensitive"] = found["user_control_sensitive"] or found["user_location_sensitive"]
    found["critical"] = found["sensitive"] and not found["privileged"]
    found["user_critical"] = found["user_sensitive"] and not found["privileged"]
    return found


def seen(at: At) -> tuple[int, ...]:
    """What of the hardware the guest sees."""
    return (at.acc, at.cells[2], at.cells[3])


def _every() -> Iterator[tuple[At, tuple[int, int], int]]:
    return itertools.product(GUESTS, PRIVATE, (0, 1))


def noted(s: At) -> tuple[int, ...]:
    """What the control program notes of a guest."""
    return (s.mode, s.base, s.bound, s.small)


def same_guest(s: At) -> At:
    """Of the cells, those that are there."""
    return s._replace(cells=(s.cells[0], s.cells[1], 0, 0))


def tells(runs: Table) -> bool:
    """A trap of the hardware leaves what the control program needs to go on.

    Guests are compared that differ in words and in cells that are there: nobody keeps the others.
    """
    alike: dict[object, list[tuple[At, int]]] = {}
    for s, p, x in _every():
        end = runs[image(s, p), x]
        if end.trap:
            alike.setdefault((noted(s), s.cells[2:], p, x, end), []).append((s, x))
    for (_, _, p, _, end), group in alike.items():  # type: ignore[misc]
        natives = [runs[key] for key in group]
        open_ones = [n for n in natives if not (n.trap == end.trap and image(n.at, p) == end.at)]
        for mine, theirs in itertools.product(open_ones, natives):
            if "storage" not in (mine.trap, theirs.trap) and (
                mine.trap != theirs.trap or same_guest(mine.at) != same_guest(theirs.at)
            ):
                return False
    return True


def premises(runs: Table) -> dict[str, bool]:
    """A1, A10, A3, A4, A5, A8 of the instruction."""
    found = dict.fromkeys(("A1_fidelity", "A10_hybrid", "A3_closure_next", "A5_control", "A8_efficiency"), True)
    for s, p, x in _every():
        native, hardware, before = runs[s, x], runs[image(s, p), x], image(s, p)
        if not hardware.trap:
            kept = not native.trap and all(getattr(native.at, n) == getattr(s, n) for n in OWNED)
            if not kept or hardware.at != image(native.at, p):
                found["A1_fidelity"] = False
                if s.mode == 1:
                    found["A10_hybrid"] = False
        else:
            taken = any(getattr(hardware.at, n) != getattr(before, n) for n in OWNED)
            if taken or hardware.at.cells[:2] != before.cells[:2]:
                found["A5_control"] = False
            if not native.trap:
                found["A8_efficiency"] = False
        if not native.trap and native.at.small != 1:
            found["A3_closure_next"] = False
    return found | {"A4_entry_tells_apart": tells(runs)}


def promises(runs: Table) -> dict[str, bool]:
    """Fidelity and safety."""
    faithful, safe = tells(runs), True
    results: dict[object, tuple[int, ...]] = {}
    for s, p, x in _every():
        before = image(s, p)
        native, hardware = runs[s, x], runs[before, x]
        changed = any(getattr(hardware.at, n) != getattr(before, n) for n in OWNED)
        if changed or hardware.at.cells[:2] != before.cells[:2]:
            safe = False
        if hardware.trap:
            continue
        if native.trap or any(getattr(native.at, n) != getattr(s, n) for n in OWNED):
            faithful = False
        elif any(getattr(hardware.at, n) != getattr(image(native.at, p), n) for n in (*OWNED, "small")):
            faithful = False
        elif seen(hardware.at) != seen(image(native.at, p)):
            faithful = False
        if results.setdefault((s, x), seen(hardware.at)) != seen(hardware.at):
            safe = False
    return {"faithful": faithful, "safe": safe}


def by_brute_force(machine: Machine[tiny.Tiny]) -> dict[str, bool]:
    """Everything."""
    runs = table(machine)
    return classes(runs) | promises(runs) | premises(runs)


def by_solver(machine: Machine[tiny.Tiny]) -> dict[str, bool]:
    """The same, from popek."""
    from popek.checks.classify import Classifier
    from popek.checks.premises import Premises
    from popek.checks.promises import Keeper
    from popek.checks.runs import explore_instruction
    from popek.checks.survey import row_of
    from popek.checks.verdict import Truth
    from popek.kernel.configuration import Configuration

    plain, technique, instruction = Configuration(), machine.technique(), machine.instructions["DO x"]
    run = explore_instruction(machine, instruction)
    found = Classifier(machine, technique, plain, components=False).classify(instruction, run)
    kept = Keeper(machine, technique, plain).keeps(instruction, run)
    asked = Premises(machine, technique, plain).of(instruction, run)
    answers = {**row_of(found).classes, **{n: found.truth(n) for n in found.findings}}
    answers |= {"faithful": kept.fidelity.kept, "safe": kept.safety.kept, **{p.name: p.truth for p in asked}}
    return {name: truth is Truth.YES for name, truth in answers.items() if truth in (Truth.YES, Truth.NO)}


def differences(seed: int) -> dict[str, tuple[bool, bool]]:
    """Where the two differ: brute force, solver."""
    machine = tiny.machine(tiny.semantics(tiny.program(seed)))
    brute, solver = by_brute_force(machine), by_solver(machine)
    return {n: (brute[n], solver[n]) for n in brute if brute[n] != solver.get(n)}  # type: ignore[misc]


def main(count: int, first: int) -> None:
    """Compare so many machines."""
    bad = 0
    for number, seed in enumerate(range(first, first + count), 1):
        found = differences(seed)
        if found:
            bad += 1
            print(seed, tiny.program(seed), found, flush=True)
        if number % 250 == 0:
            print(f"{number} machines, {bad} with a difference", flush=True)
    print(f"{count} machines, {bad} with a difference")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
