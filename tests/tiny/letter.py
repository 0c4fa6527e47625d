"""The classes by the letter of 1974, by brute force over all states: docs/explanation/letter.md on plain numbers."""

from __future__ import annotations

import itertools
from collections import defaultdict

from .brute_force import BruteForce
from .grammar import CELLS, Tiny, Trapped

Result = tuple[int, ...]


def in_reach(state: Tiny) -> tuple[int, ...]:
    """The cells that a reference of one bit gets to."""
    return state.cells[state.base : min(state.base + 2, CELLS)]


class ByTheLetter(BruteForce):
    """One instruction by the letter."""

    def letter_privileged(self) -> bool | None:
        """For every two states that differ only in mode, without a memory trap; None where there are none."""
        answers = []
        for (state, operand), user in self.outcome.items():
            twin = self.outcome[state._replace(mode=0), operand]
            memory = [isinstance(one, Trapped) and one.memory for one in (user, twin)]
            if state.mode == 1 and not any(memory):
                answers.append(isinstance(user, Trapped) and not isinstance(twin, Trapped))
        return all(answers) if answers else None

    def letter_control(self, modes: tuple[int, ...]) -> bool:
        """It traps, not on storage, or changes the mode or a resource."""
        for (state, _), outcome in self.outcome.items():
            if state.mode in modes:
                if isinstance(outcome, Trapped):
                    if not outcome.memory:
                        return True
                elif self._control(state) != self._control(outcome):
                    return True
        return False

    @staticmethod
    def _control(state: Tiny) -> tuple[int, int, int]:
        return state.mode, state.timer, state.base

    def letter_behavior(self, modes: tuple[int, ...]) -> bool:
        """Two states with the same in reach, P and accumulator: both complete, keep M and R, and end unlike."""
        groups: dict[Result, list[tuple[tuple[int, ...], Result]]] = defaultdict(list)
        for (state, operand), after in self.outcome.items():
            if (
                isinstance(after, Trapped)
                or state.mode not in modes
                or self._control(state) != self._control(after)
            ):
                continue
            cells = in_reach(state)
            end = (after.pc, after.acc, *after.cells[state.base : state.base + len(cells)])
            groups[operand, state.pc, state.acc, cells[0]].append((cells, end))
        for group in groups.values():
            for (mine, end), (theirs, other) in itertools.combinations(set(group), 2):
                common = min(len(mine), len(theirs))
                if mine[:common] == theirs[:common] and end[: 2 + common] != other[: 2 + common]:
                    return True
        return False

    def letter(self) -> dict[str, bool | None]:
        """Every class; None: not asked."""
        control, behavior = self.letter_control((0, 1)), self.letter_behavior((0, 1))
        user = self.letter_control((1,)) or self.letter_behavior((1,))
        privileged = self.letter_privileged()
        sensitive = control or behavior
        return {
            "privileged": privileged,
            "control_sensitive": control,
            "behavior_sensitive": behavior,
            "user_sensitive": user,
            "sensitive": sensitive,
            "innocuous": not sensitive,
            "critical": False if not sensitive else None if privileged is None else not privileged,
            "user_critical": False if not user else None if privileged is None else not privileged,
        }
