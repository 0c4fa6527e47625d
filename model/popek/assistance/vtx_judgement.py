"""Judging the controls of a real VMM: what runs untrapped, whom it harms, and which exits are needless.

For one form of each instruction that VMX says something about, and for everything that a VMM could own and
the instruction touches, it is asked whether the instruction is faithful and safe under the given controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import attrs

from popek.architectures.requirements import FAILURES
from popek.architectures.vtx.operation.fidelity import Obligation
from popek.architectures.vtx.operation.ownership import FEATURES, OWNABLE, Profile, profile
from popek.architectures.vtx.operation.settings import Settings
from popek.checks.workers import Workers
from popek.kernel import terms
from popek.kernel.outcome import Next

from .vtx_requirements import (
    Witness,
    asking,
    duty,
    excess,
    explored,
    governed_forms,
    machine,
    representatives,
    required,
    witness,
)
from .vtx_synthesis import Necessity, necessities

# What each ownership is about, by component; a form that mentions none of them cannot harm it.  Nobody can own
# all of CR0 or CR4: bits such as CR0.AM and CR4.UMIP work on instructions that never exit.
TOUCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("cr0", "cr4", "non_root"),
    "time": ("tsc", "msr"),
    "cr3": ("cr3", "tlb_stale", "cr0", "cr4"),
    "debug": ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    "counters": ("pmc",),
    "msrs": ("msr",),
    "apic": ("msr",),
    "ports": ("ports",),
    "halt": ("halted",),
    "caches": ("cache_dirty", "cr0"),
    "nmis": ("nmi_blocked",),
}
_EVENTS: Final = ("interrupts", "nmis")
ALWAYS, SOMETIMES, NEVER = "always", "sometimes", "never"


@attrs.frozen
class Harm:
    """An instruction that runs where the VMM should have known.

    Attributes:
        owner: who is harmed: a VMM that owns this (of `OWNABLE`), or any (empty).
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


@attrs.frozen
class Judgement:
    """What the controls of a VMM come to.

    Attributes:
        kept: what a VMM with these controls can own: no instruction harms it, and it gets what it must.
        lacking: what must reach the VMM and does not.
    """

    settings: Settings
    rows: tuple[Judged, ...]
    kept: tuple[str, ...]
    lacking: tuple[Necessity, ...]

    @property
    def safe_at_all(self) -> bool:
        """No instruction harms a VMM whatever it owns."""
        return not any(harm.owner == "" for row in self.rows for harm in row.harms)

    def to_json(self) -> dict[str, Any]:
        """`popek/vtx-judgement/1`."""
        return {
            "schema": "popek/vtx-judgement/1",
            "name": self.settings.name,
            "source": self.settings.source,
            "notes": list(self.settings.notes),
            "controls": sorted(name for name, value in self.settings.controls.items() if value),
            "can_own": list(self.kept),
            "lacking": [attrs.asdict(item) for item in self.lacking],
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
    settings: Settings,
    *,
    forms: Iterable[str] | None = None,
    witnesses: bool = True,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge the controls, one form of each instruction by default.

    Args:
        workers: the processes; this one alone by default.
        progress: called with the number of forms that are done and of all.
    """
    wanted = representatives(governed_forms()) if forms is None else tuple(forms)
    workers = workers or Workers(1)
    rows = []
    for row in workers.map(partial(_judged, settings=settings, witnesses=witnesses), wanted):
        rows.append(row)
        if progress is not None:
            progress(len(rows), len(wanted))
    harmed = {harm.owner for row in rows for harm in row.harms}
    could = [
        name
        for name in OWNABLE
        if name not in harmed and "" not in harmed and name not in ("cr0", "cr4")
        if not (name == "cr3" and settings.ept)
    ]
    lacking = tuple(
        item
        for item in necessities(_profile((*_EVENTS, *_paging(settings)), settings))
        if not settings.controls[item.control]
    )
    lost = {"external interrupts": "interrupts", "NMIs": "nmis"}
    kept = [name for name in could if name not in {lost.get(item.name) for item in lacking}]
    final = _profile(kept, settings)
    needless = workers.map(partial(_needless, owned=final, settings=settings), rows)
    judged = tuple(attrs.evolve(row, needless=answer) for row, answer in zip(rows, needless, strict=True))
    return Judgement(settings, judged, tuple(kept), lacking)


def _paging(settings: Settings) -> tuple[str, ...]:
    """Without EPT the VMM cannot but own CR3."""
    return () if settings.ept else ("cr3",)


def _profile(owns: Iterable[str], settings: Settings) -> Profile:
    hidden = [name for name in FEATURES if not settings.controls[name]]
    names = set(owns)
    return profile(names, unrestricted=settings.unrestricted and "cr3" not in names, hidden=hidden)


def _fixed(settings: Settings) -> dict[str, int]:
    """Every knob; a bitmap that nobody knows is taken to cover what is owned."""
    return {
        **settings.controls,
        "cr0_mask": 1,
        "cr4_mask": 1,
        "io_bitmap": 1,
        "msr_bitmap": 1,
        **settings.bitmaps,
    }


def _judged(form: str, settings: Settings, witnesses: bool) -> Judged:
    mnemonic = machine().instructions[form].mnemonic
    fixed = _fixed(settings)
    owners = [owner for owner, parts in TOUCHES.items() if not touched(form).isdisjoint(parts)]
    if settings.ept:
        owners = [owner for owner in owners if owner != "cr3"]
    harms, harmless = [], []
    plain = duty(form, _profile((), settings), fixed, settings.masks)
    ask = asking(plain)
    can_exit = plain.exits.value != 0 and ask([plain.exits]) is not False
    can_run = plain.completes.value != 0 and ask([plain.completes]) is not False
    if can_run or not can_exit:
        for owner in owners:
            due = plain if not owner else duty(form, _profile([owner], settings), fixed, settings.masks)
            failure = failure_of(due)
            if failure is None:
                harmless.append(owner)
            else:
                shown = witness(due, fixed) if witnesses and failure != "unknown" else None
                harms.append(Harm(owner, failure, shown))
    if harms and harms[0].owner == "":
        harms = harms[:1]  # whoever owns anything is harmed
    exits = ALWAYS if can_exit and not can_run else SOMETIMES if can_exit else NEVER
    return Judged(form, mnemonic, exits, tuple(harms), tuple(owner for owner in harmless if owner))


def failure_of(due: Obligation) -> str | None:
    """How it fails, `unknown` where that was not decided, or None."""
    ask = asking(due)
    answers = {}
    for name in reversed(FAILURES):
        condition = getattr(due, name)
        answers[name] = False if condition.value == 0 else ask([condition])
        if answers[name]:
            return name
    return "unknown" if None in answers.values() else None


def _needless(row: Judged, owned: Profile, settings: Settings) -> bool:
    """Whether it exits in a case in which some other setting would be as good for who owns so much."""
    if row.exits == NEVER or row.harms:
        return False
    due = duty(row.form, owned)
    found = required(row.form, owned)
    if len(found.sound) < 2:
        return False
    fixed = _fixed(settings)
    return tuple(fixed[name] for name in found.knobs) in excess(due, found)


def touched(form: str) -> set[str]:
    """The components that a form reads or changes."""
    run = explored(form)
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


__all__ = ["ALWAYS", "NEVER", "SOMETIMES", "Harm", "Judged", "Judgement", "failure_of", "judge", "touched"]
