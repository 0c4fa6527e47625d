"""What an assistance gains: deprivileging without it, beside earlier choices of the controls, beside the best one.

By the letter of Theorem 1's premise, an instruction that works on what the assistance shows it is still critical; what
the assistance restores is what the premise is for: every instruction exits, or does to the guest's state what it
should.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth
from popek.kernel.assistance import Assistance
from popek.solving.solver import Answer

from .desk import Desk, desk_of
from .judgement import failure_of, how_it_exits
from .synthesis import processor_of, synthesize

BEST = "best"


@attrs.frozen
class Under:
    """One instruction with the assistance: how it exits, and how it fails where it does not, if it fails."""

    exits: str
    failure: str | None


@attrs.frozen
class Gained:
    """One instruction before and after.

    Attributes:
        problem: what it stands for in the literature, if anything.
        critical: under the technique that the assistance replaces; unknown where the machine lacks it.
        after: by name of the choice of controls; the best one last.
    """

    form: str
    mnemonic: str
    problem: str
    critical: Truth
    after: Mapping[str, Under]

    @property
    def failing(self) -> bool:
        """It fails under some choice."""
        return any(under.failure for under in self.after.values())


@attrs.frozen(eq=False)
class Gain:
    """The table.

    Attributes:
        before: the technique that the assistance replaces.
        titles: of the choices of controls, by name.
    """

    assistance: Assistance[Any]
    before: str
    titles: Mapping[str, str]
    rows: tuple[Gained, ...]

    @property
    def critical(self) -> tuple[str, ...]:
        """The mnemonics that are critical before."""
        return tuple(dict.fromkeys(row.mnemonic for row in self.rows if row.critical is Truth.YES))

    @property
    def as_claimed(self) -> bool:
        """Something is critical before, and nothing fails after."""
        return bool(self.critical) and not any(row.failing for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """`popek/assistance-gain/1`."""
        return {
            "schema": "popek/assistance-gain/1",
            "assistance": self.assistance.name,
            "before": self.before,
            "instructions": [
                {
                    "form": row.form,
                    "mnemonic": row.mnemonic,
                    "problem": row.problem,
                    "critical_before": row.critical.value,
                    "after": {name: attrs.asdict(under) for name, under in row.after.items()},
                }
                for row in self.rows
            ],
            "critical_before": list(self.critical),
            "failing_after": [row.form for row in self.rows if row.failing],
        }


def gain(
    assistance: Assistance[Any],
    forms: Sequence[str] | None = None,
    *,
    processor: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Gain:
    """The table, for one form of each instruction that the assistance decides about and those that show a problem.

    Raises:
        AssistanceError: no such processor, or no choice of its controls is faithful and safe.
    """
    desk, known = desk_of(assistance), desk_of(assistance).machine.instructions
    wanted = list(forms) if forms is not None else [*assistance.problems, *desk.representatives()]
    wanted = [form for form in dict.fromkeys(wanted) if form in known]
    make, before = assistance.before
    plain = make()
    surveyor = Surveyor(Request(Subject.of(plain, before), components=False))
    choices: dict[str, tuple[str, Any, Mapping[str, int]]] = {
        name: (preset.title, preset.profile, preset.setting) for name, preset in assistance.presets().items()
    }
    best = synthesize(desk, processor_of(desk, processor))
    if best.answer is Answer.SAT:
        choices[BEST] = "fewest exits", best.profile, {**assistance.circumstances, **best.controls}
    rows = []
    for number, form in enumerate(wanted, 1):
        critical = surveyor.row(form).classes["critical"] if form in plain.instructions else Truth.UNKNOWN
        after = {name: under(desk, form, profile, setting) for name, (_, profile, setting) in choices.items()}
        rows.append(Gained(form, known[form].mnemonic, assistance.problems.get(form, ""), critical, after))
        if progress is not None:
            progress(number, len(wanted))
    titles = {name: title for name, (title, _, _) in choices.items()}
    return Gain(assistance, before, titles, tuple(rows))


def under(desk: Desk[Any], form: str, profile: Any, setting: Mapping[str, int]) -> Under:
    """One form with these settings."""
    due = desk.duty(form, profile, setting)
    conditions = due.under(setting)
    can_exit, can_run = (
        c.value != 0 and due.ask([*conditions, c]) is not False for c in (due.exits, due.completes)
    )
    return Under(how_it_exits(can_exit, can_run), failure_of(due, setting))
