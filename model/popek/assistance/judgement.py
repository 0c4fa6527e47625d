"""Judging the controls of a real VMM: what runs untrapped, whom it harms, and which exits are needless.

For one form of each instruction that the assistance decides about, and for everything that a VMM could own and the
instruction touches, it is asked whether the instruction is faithful and safe under the given controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs

from popek.checks.workers import Workers
from popek.kernel import terms
from popek.kernel.assistance import Assistance, Necessity, Rule, Settings
from popek.kernel.outcome import Next

from .desk import Desk, Duty, desk_of
from .exits import excess
from .requirements import FAILURES
from .witness import Witness, witness

ALWAYS, SOMETIMES, NEVER = "always", "sometimes", "never"
UNKNOWN = "unknown"


@attrs.frozen
class Harm:
    """An instruction that runs where the VMM should have known.

    Attributes:
        owner: who is harmed: a VMM that owns this, or any (empty).
        failure: `unfaithful` or `unsafe`; `unknown` where that was not decided.
        witness: a replayed case, where it was asked for.
    """

    owner: str
    failure: str
    witness: Witness | None = None


@attrs.frozen
class Judged:
    """One instruction under the controls.

    Attributes:
        exits: always, sometimes or never (where it passes the checks before the exit).
        harms: whom it harms.
        harmless: of the ownerships that it touches, those that it does not harm.
        needless: it exits in a case in which another setting would do, whatever else is owned here.
    """

    form: str
    mnemonic: str
    exits: str
    harms: tuple[Harm, ...]
    harmless: tuple[str, ...]
    needless: bool = False


@attrs.frozen(eq=False)
class Judgement:
    """What the controls of a VMM come to.

    Attributes:
        kept: what a VMM with these controls can own: no instruction harms it, and it gets what it must.
        lacking: what must reach the VMM and does not.
    """

    assistance: Assistance[Any]
    settings: Settings
    rows: tuple[Judged, ...]
    kept: tuple[str, ...]
    lacking: tuple[Necessity, ...]

    @property
    def safe_at_all(self) -> bool:
        """No instruction harms a VMM whatever it owns."""
        return not any(harm.owner == "" for row in self.rows for harm in row.harms)

    @property
    def on(self) -> list[str]:
        """The controls that are 1, without masks and tables."""
        cover = self.assistance.cover
        return [name for name, value in self.settings.controls.items() if value and name not in cover]

    def to_json(self) -> dict[str, Any]:
        """`popek/assistance-judgement/1`."""
        return {
            "schema": "popek/assistance-judgement/1",
            "assistance": self.assistance.name,
            "name": self.settings.name,
            "source": self.settings.source,
            "notes": list(self.settings.notes),
            "controls": sorted(self.on),
            "can_own": list(self.kept),
            "lacking": [
                {"name": item.name, "control": item.control, "why": item.why} for item in self.lacking
            ],
            "instructions": [
                {
                    "form": row.form,
                    "mnemonic": row.mnemonic,
                    "exits": row.exits,
                    "harms": [
                        {
                            "owner": harm.owner or "any",
                            "failure": harm.failure,
                            "witness": None if harm.witness is None else harm.witness.to_json(),
                        }
                        for harm in row.harms
                    ],
                    "harmless_for": list(row.harmless),
                    "needless_exit": row.needless,
                }
                for row in self.rows
            ],
        }


def judge(
    assistance: Assistance[Any],
    settings: Settings,
    *,
    forms: Iterable[str] | None = None,
    witnesses: bool = True,
    workers: Workers | None = None,
    again: Callable[[], Assistance[Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge the controls, one form of each instruction by default.

    Args:
        workers: the processes; this one alone by default.
        again: finds the assistance in other processes, and can be sent to them.
        progress: called with the number of forms that are done and of all.
    """
    desk = desk_of(assistance)
    wanted = desk.representatives() if forms is None else tuple(forms)
    if workers is None or again is None:
        workers, again = Workers(1), lambda: assistance
    rows = []
    for row in workers.map(partial(_judged, again, settings, witnesses), wanted):
        rows.append(row)
        if progress is not None:
            progress(len(rows), len(wanted))
    harmed = {harm.owner for row in rows for harm in row.harms}
    could = [
        name
        for name, ownable in assistance.ownable.items()
        if ownable.alone and name not in settings.excludes and not {name, ""} & harmed
    ]
    owns = (assistance.everything | set(settings.owns)) - set(settings.excludes)
    lacking = tuple(
        item
        for item in assistance.necessities(profile_of(assistance, owns, settings))
        if not settings.controls.get(item.control)
    )
    lost = {item.owner for item in lacking if item.owner}
    kept = tuple(name for name in could if name not in lost)
    needless = workers.map(partial(_needless, again, settings, kept), rows)
    judged = tuple(attrs.evolve(row, needless=answer) for row, answer in zip(rows, needless, strict=True))
    return Judgement(assistance, settings, judged, kept, lacking)


def profile_of(assistance: Assistance[Any], owns: Iterable[str], settings: Settings) -> Any:
    """The profile of a VMM with these settings that owns so much."""
    return assistance.owner(owns, assume=settings.assume, lacks=settings.lacks)


def fixed_of(assistance: Assistance[Any], settings: Settings) -> dict[str, int]:
    """Every control, in the usual circumstances where nobody says."""
    return {**assistance.circumstances, **settings.controls}


def _judged(again: Callable[[], Assistance[Any]], settings: Settings, witnesses: bool, form: str) -> Judged:
    assistance = again()
    desk = desk_of(assistance)
    fixed = fixed_of(assistance, settings)
    seen = touched(desk, form)
    owners = [
        owner
        for owner, ownable in assistance.ownable.items()
        if ownable.alone and owner not in settings.excludes and _touches(seen, ownable.touches)
    ]
    if _touches(seen, assistance.touches):
        owners = ["", *owners]

    def due_to(*owner: str) -> Duty[Any]:
        return desk.duty(form, profile_of(assistance, owner, settings), fixed, settings.masks)

    harms, harmless = [], []
    plain = due_to()
    under = plain.under(fixed)
    can_exit, can_run = (
        c.value != 0 and plain.ask([*under, c]) is not False for c in (plain.exits, plain.completes)
    )
    if can_run or not can_exit:
        for owner in owners:
            due = due_to(owner) if owner else plain
            failure = failure_of(due, fixed)
            if failure is None:
                harmless.append(owner)
            else:
                shown = witness(due, fixed) if witnesses and failure != UNKNOWN else None
                harms.append(Harm(owner, failure, shown))
    if harms and harms[0].owner == "":
        harms = harms[:1]  # whoever owns anything is harmed
    exits = how_it_exits(can_exit, can_run)
    mnemonic = desk.machine.instructions[form].mnemonic
    return Judged(form, mnemonic, exits, tuple(harms), tuple(owner for owner in harmless if owner))


def how_it_exits(can_exit: bool, can_run: bool) -> str:
    """Always, sometimes or never."""
    return ALWAYS if can_exit and not can_run else SOMETIMES if can_exit else NEVER


def failure_of(due: Duty[Any], setting: Mapping[str, int]) -> str | None:
    """How it fails under a setting, `unknown` where that was not decided, or None."""
    answers, under = {}, due.under(setting)
    for name in reversed(FAILURES):
        condition = getattr(due, name)
        answers[name] = False if condition.value == 0 else due.ask([*under, condition])
        if answers[name]:
            return name
    return UNKNOWN if None in answers.values() else None


def _needless(
    again: Callable[[], Assistance[Any]], settings: Settings, kept: tuple[str, ...], row: Judged
) -> bool:
    """Whether it exits in a case in which some other setting would be as good for who owns so much."""
    if row.exits == NEVER or row.harms:
        return False
    assistance = again()
    desk, owned = desk_of(assistance), profile_of(assistance, kept, settings)
    found = desk.required(row.form, owned)
    if len(found.sound) < 2:
        return False
    setting = fixed_of(assistance, settings)
    given = {c.name: setting[c.name] for c in assistance.controls if not c.chosen and c.name in setting}
    given |= {item.control: 1 for item in assistance.necessities(owned) if setting.get(item.control)}
    return found.at(setting) in excess(desk.duty(row.form, owned), found, given)


def _touches(seen: set[str], components: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for name in seen for part in components)


def touched(desk: Desk[Any], form: str) -> set[str]:
    """The components that a form reads or changes."""
    run = desk.run(form)
    roots = [condition for path in run.paths for condition in path.conditions]
    names: set[str] = set()
    for path in run.paths:
        if isinstance(path.result, Next):
            done = path.result.state
            changed = [name for name, word in done.words().items() if word.term is not run.before[name].term]
            names |= set(changed) | {name for name, content in done.memories().items() if content.stores}
            roots += [done[name].term for name in changed]
            roots += [
                cell.term
                for content in done.memories().values()
                for entry in content.stores
                if isinstance(entry, tuple)
                for cell in entry
            ]
    names |= set(terms.variables_of(roots))
    return names | {str(cell.data) for cell in terms.applications_of(roots)}


# -- one profile -----------------------------------------------------------------------------------------

ORDER = ("rejected", "unsafe", "undefined", "unfaithful", "vmm-defect", "undecided", "sound")
"""What a configuration comes to, worst first."""


@attrs.frozen
class Failing:
    """An instruction that a configuration does not make faithful and safe.

    Attributes:
        verdict: `unsafe`, `unfaithful`, or `unknown` where that could not be decided.
        governed: some control decides it; otherwise the controls are not to blame.
    """

    form: str
    mnemonic: str
    verdict: str
    governed: bool
    witness: Witness | None


@attrs.frozen(eq=False)
class Checked:
    """A configuration for a VMM that owns so much: rules, and what it lets instructions do."""

    assistance: Assistance[Any]
    settings: Settings
    rows: tuple[Failing, ...]
    lacking: tuple[Necessity, ...] = ()

    @property
    def broken(self) -> list[Rule]:
        """The rules that are broken."""
        return [rule for rule in self.settings.rules if rule.kept is False]

    @property
    def outcome(self) -> str:
        """The worst of the rules' consequences and of what was derived of instructions that the controls govern."""
        found = ["sound"]
        found += ["rejected" if r.consequence == "reject" else r.consequence for r in self.broken]
        found += ["undecided" for rule in self.settings.rules if rule.kept is None]
        found += ["undecided" if r.verdict == UNKNOWN else r.verdict for r in self.rows if r.governed]
        found += ["unsafe" for _ in self.lacking]
        return min(found, key=ORDER.index)

    def to_json(self) -> dict[str, Any]:
        """`popek/assistance-check/1`."""
        return {
            "schema": "popek/assistance-check/1",
            "assistance": self.assistance.name,
            "name": self.settings.name,
            "outcome": self.outcome,
            "broken": [attrs.asdict(rule, filter=lambda a, _: a.name != "kept") for rule in self.broken],
            "undecided": [rule.id for rule in self.settings.rules if rule.kept is None],
            "kept": [rule.id for rule in self.settings.rules if rule.kept],
            "lacking": [attrs.asdict(item) for item in self.lacking],
            "instructions": [attrs.asdict(row) for row in self.rows],
        }


def check(
    assistance: Assistance[Any],
    settings: Settings,
    owns: Iterable[str] | None = None,
    *,
    assume: Mapping[str, int] | None = None,
    derive: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """A configuration for a VMM that owns so much, with a witness for each instruction that fails.

    Args:
        owns: by default all that nothing excludes; what the configuration grants is the guest's.
        derive: look at the instructions.

    Raises:
        AssistanceError: nobody can own so.
        ReplayError: a defect of popek.
    """
    desk = desk_of(assistance)
    usual = (assistance.everything | set(settings.owns)) - set(settings.excludes)
    names = frozenset(usual if owns is None else owns) - set(settings.grants)
    profile = assistance.owner(names, assume={**settings.assume, **(assume or {})}, lacks=settings.lacks)
    rows = tuple(_failing(desk, settings, profile, progress)) if derive else ()
    lacking = tuple(
        item for item in assistance.necessities(profile) if settings.controls.get(item.control) == 0
    )
    return Checked(assistance, settings, rows, lacking)


def _failing(
    desk: Desk[Any], settings: Settings, profile: Any, progress: Callable[[int, int], None] | None
) -> Iterator[Failing]:
    setting = settings.controls
    for done, form in enumerate(desk.forms, 1):
        fixed = desk.duty(form, profile, setting, settings.masks)
        verdict = failure_of(fixed, setting)
        if verdict is not None:
            due = desk.duty(form, profile, None, settings.masks)
            shown = None if verdict == UNKNOWN else witness(due, setting, (verdict,))
            mnemonic = fixed.instruction.mnemonic
            yield Failing(form, mnemonic, verdict, bool(due.knobs), shown)
        if progress is not None:
            progress(done, len(desk.forms))
