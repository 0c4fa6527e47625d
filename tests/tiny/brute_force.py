"""The definitions, by brute force over all states: no solver, no word, no term.

Each function is the sentence of docs/explanation/definitions.md that it is named after, read on plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def _image(guest: Tiny, timer: int, own_cell: int) -> Tiny:
    """f(G, P), of any G: the sum has two bits."""
    there = image(guest, timer, own_cell)
    return there._replace(base=there.base % 4)


def _seen(state: Tiny) -> Tiny:
    """The state without the VMM's cell."""
    return state._replace(cells=(0, *state.cells[1:]))  # type: ignore[arg-type]


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
        """Where it completes on f(G, P), it completes on G, ends in f(i(G), P), and changes nothing shadowed.

        Storage is compared as the guest addresses it: a change of the VMM's cell is safety's business, and A1's.
        Where it traps there, the VMM can tell how to go on with the guest.
        """
        if not self.told_apart():
            return False
        for guest, operand, timer, cell in self._guests():
            there = self._done(image(guest, timer, cell), operand)
            if there is None:
                continue
            native = self._done(guest, operand)
            if native is None or native.base > 2 or _seen(image(native, timer, cell)) != _seen(there):
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

    def told_apart(self) -> bool:
        """A4: no trap leaves two guests alike to the VMM that the guest's own machine treats differently.

        The guests have the same in what the VMM notes, and in the cell that the map leaves out.  A trap that leaves
        just what the guest's own machine leaves is left aside.
        """
        alike: dict[object, list[tuple[Tiny, int]]] = {}
        for guest, operand, timer, cell in self._guests():
            outcome = self.outcome[image(guest, timer, cell), operand]
            if isinstance(outcome, Trapped):
                noted = guest.mode, guest.timer, guest.base, guest.cells[CELLS - START :]
                alike.setdefault((noted, operand, timer, cell, outcome), []).append((guest, operand))
        for (_, _, timer, cell, outcome), group in alike.items():  # type: ignore[misc]
            natives = [self.outcome[key] for key in group]
            for mine in natives:
                if isinstance(mine, Trapped) and (mine.memory, _image(mine.state, timer, cell)) == outcome:
                    continue
                if any(self._unlike(mine, theirs) for theirs in natives):
                    return False
        return True

    @staticmethod
    def _unlike(a: Outcome, b: Outcome) -> bool:
        ends = []
        for one in (a, b):
            after = one.state if isinstance(one, Trapped) else one
            kind = one.memory if isinstance(one, Trapped) else None
            ends.append((kind, after._replace(cells=(*after.cells[: CELLS - START], 0))))  # type: ignore[arg-type]
        return ends[0] != ends[1]

    # -- premises --

    def premises(self) -> dict[str, bool]:
        """A1, A3, A5, A8 and A10 of the instruction, and A4."""
        names = ("A1_fidelity", "A10_hybrid", "A3_closure_next", "A5_control", "A8_efficiency")
        found = dict.fromkeys(names, True)
        for guest, operand, timer, cell in self._guests():
            before = image(guest, timer, cell)
            native, outcome = self._done(guest, operand), self.outcome[before, operand]
            after = outcome.state if isinstance(outcome, Trapped) else outcome
            found["A5_control"] &= self._owned(before) == self._owned(after)
            if isinstance(outcome, Trapped):
                found["A8_efficiency"] &= native is None
            else:
                kept = native is not None and outcome == _image(native, timer, cell)
                if native is None or not kept or self._noted(native) != self._noted(guest):
                    found["A1_fidelity"] = False
                    found["A10_hybrid"] &= guest.mode == 0
            if native is not None:
                found["A3_closure_next"] &= native.base <= 1
        return found | {"A4_entry_tells_apart": self.told_apart()}

    @staticmethod
    def _noted(state: Tiny) -> tuple[int, int, int]:
        return state.mode, state.timer, state.base

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
