"""The definitions, by brute force over all states: no solver, no word, no term.

Each function is the sentence of docs/explanation/definitions.md that it is named after, read on plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .grammar import CELLS, Code, Tiny, Trapped, run, states

START = 1
OPERANDS = (0, 1)
EVERY = tuple(states())
Outcome = Tiny | Trapped


def relocate(state: Tiny, offset: int) -> Tiny:
    """All of storage, with the relocation register, `offset` cells further on."""
    cells = tuple(state.cells[(c - offset) % CELLS] for c in range(CELLS))
    return state._replace(base=(state.base + offset) % 4, cells=cells)  # type: ignore[arg-type]


def image(guest: Tiny, timer: int, own_cell: int) -> Tiny:
    """f(G, P), of a P with this timer and this cell 0."""
    cells = (own_cell, *guest.cells[: CELLS - START])
    return Tiny(1, guest.pc, timer, guest.base + START, guest.acc, cells)  # type: ignore[arg-type]


class BruteForce:
    """One instruction, run from every state with every operand."""

    def __init__(self, code: Code) -> None:
        self.outcome: dict[tuple[Tiny, int], Outcome] = {
            (state, operand): run(code, state, operand) for state in EVERY for operand in OPERANDS
        }

    def _done(self, state: Tiny, operand: int) -> Tiny | None:
        """Where it completes and control stays where it was."""
        after = self.outcome[state, operand]
        return None if isinstance(after, Trapped) else after

    def _all(self, mode: int | None = None) -> Iterator[tuple[Tiny, int, Tiny]]:
        for (state, operand), _ in self.outcome.items():
            if mode is None or state.mode == mode:
                after = self._done(state, operand)
                if after is not None:
                    yield state, operand, after

    # -- classes --

    def privileged(self) -> bool:
        """In user mode it always traps, and some trap's twin in supervisor mode completes."""
        if any(True for _ in self._all(1)):
            return False
        return any(
            self._done(state._replace(mode=0), operand) is not None
            for (state, operand), _ in self.outcome.items()
            if state.mode == 1
        )

    def control_sensitive(self, mode: int | None = None) -> bool:
        """It changes mode or a resource."""
        return any(
            (before.mode, before.timer, before.base) != (after.mode, after.timer, after.base)
            for before, _, after in self._all(mode)
        )

    def location_sensitive(self, mode: int | None = None) -> bool:
        """It does not commute with relocation."""
        for before, operand, after in self._all(mode):
            for offset in range(1, 4):
                there = self._done(relocate(before, offset), operand)
                if there is not None and relocate(after, offset) != there:
                    return True
        return False

    def mode_sensitive(self) -> bool:
        """Two states that differ only in mode, and results that differ in more."""
        for before, operand, after in self._all(1):
            twin = self._done(before._replace(mode=0), operand)
            if twin is not None and twin._replace(mode=0) != after._replace(mode=0):
                return True
        return False

    def resource_sensitive(self, mode: int | None = None) -> bool:
        """Two states that differ only in the timer, and results that differ in more."""
        for before, operand, after in self._all(mode):
            other = self._done(before._replace(timer=1 - before.timer), operand)
            if other is not None and other._replace(timer=0) != after._replace(timer=0):
                return True
        return False

    def classes(self) -> dict[str, bool]:
        """As a survey's row has them."""
        user = self.control_sensitive(1) or self.location_sensitive(1) or self.resource_sensitive(1)
        found = {
            "privileged": self.privileged(),
            "control_sensitive": self.control_sensitive(),
            "location_sensitive": self.location_sensitive(),
            "mode_sensitive": self.mode_sensitive(),
            "resource_sensitive": self.resource_sensitive(),
            "user_sensitive": user,
        }
        sensitive = any(found[f"{kind}_sensitive"] for kind in ("control", "location", "mode", "resource"))
        found |= {
            "sensitive": sensitive,
            "innocuous": not sensitive,
            "critical": sensitive and not found["privileged"],
            "user_critical": user and not found["privileged"],
        }
        return found

    # -- promises --

    def _guests(self) -> Iterator[tuple[Tiny, int, int, int]]:
        """Every guest state, operand, and what the VMM keeps: its timer and its cell."""
        for state in EVERY:
            if state.base <= 1:
                for operand in OPERANDS:
                    for own in range(4):
                        yield state, operand, own & 1, own >> 1

    def faithful(self) -> bool:
        """What completes on f(G, P) does what i does to G, and what traps leaves the VMM able to do it."""
        return self._completes_alike() and self._traps_tell()

    def _traps_tell(self) -> bool:
        """No two guests that i treats differently are one to the VMM after a trap that keeps changes.

        But for a trap that leaves just what the guest's own machine leaves with it.  The two have the same of what the
        VMM notes and of what the map drops, cell 3.
        """
        ends: dict[Any, set[Outcome]] = {}
        reflected: dict[Any, bool] = {}
        for guest, operand, timer, cell in self._guests():
            there = self.outcome[image(guest, timer, cell), operand]
            if not isinstance(there, Trapped) or not there.keeps:
                continue
            known = (there.state, operand, timer, cell, guest.mode, guest.timer, guest.base, guest.cells[3])
            native = self.outcome[guest, operand]
            same = (
                isinstance(native, Trapped)
                and native.memory == there.memory
                and image(native.state, timer, cell) == there.state
            )
            ends.setdefault(known, set()).add(native)
            reflected[known] = reflected.get(known, True) and same
        return all(len(natives) == 1 or reflected[known] for known, natives in ends.items())

    def _completes_alike(self) -> bool:
        """Where it completes on f(G, P), it completes on G, ends in f(i(G), P), and changes nothing shadowed."""
        for guest, operand, timer, cell in self._guests():
            there = self._done(image(guest, timer, cell), operand)
            if there is None:
                continue
            native = self._done(guest, operand)
            if native is None or native.base > 2 or image(native, timer, cell) != there:
                return False
            if (native.mode, native.timer, native.base) != (guest.mode, guest.timer, guest.base):
                return False
        return True

    def safe(self) -> bool:
        """What it leaves of the VMM's is as before, trap or not, and nothing of it shows in the guest's."""
        seen: dict[tuple[Tiny, int], set[Tiny]] = {}
        for guest, operand, timer, cell in self._guests():
            before = image(guest, timer, cell)
            outcome = self.outcome[before, operand]
            after = outcome.state if isinstance(outcome, Trapped) else outcome
            if self._owned(before) != self._owned(after):
                return False
            if not isinstance(outcome, Trapped):
                hidden = after._replace(mode=0, timer=0, base=0, cells=(0, *after.cells[1:]))  # type: ignore[arg-type]
                ends = seen.setdefault((guest, operand), set())
                ends.add(hidden)
                if len(ends) > 1:
                    return False
        return True

    @staticmethod
    def _owned(state: Tiny) -> tuple[int, int, int, int]:
        return state.mode, state.timer, state.base, state.cells[0]

    def needless_trap(self) -> bool:
        """It can complete on G and trap on f(G, P), and not for a reference."""
        for guest, operand, timer, cell in self._guests():
            there = self.outcome[image(guest, timer, cell), operand]
            if isinstance(there, Trapped) and not there.memory and self._done(guest, operand) is not None:
                return True
        return False

    def promises(self) -> dict[str, bool]:
        """Fidelity, safety, and whether it traps needlessly, which is said of innocuous instructions alone."""
        needless = self.classes()["innocuous"] and self.needless_trap()
        return {"faithful": self.faithful(), "safe": self.safe(), "needless_trap": needless}
