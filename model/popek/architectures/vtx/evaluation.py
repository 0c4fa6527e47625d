"""Running the checks on integers: which fail, which cannot be decided, and what those would need.

A stream of VMCSs that give the same fields gets a compiled sieve (`popek.architectures.vtx.compilation`),
which leaves only the checks that have something to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from popek.kernel.words import SymbolicConditionError, Word

from .capabilities import Capabilities, CapabilityView
from .capability_limits import extremes
from .compilation import Lacking, Sieve, inactive, sieve
from .entry_checks import CHECKS, Check
from .fields import FIELDS
from .findings import Findings
from .identity import by_identity
from .superset import Superset
from .view import View, field_symbol, view_of
from .vmcs import Launch, MissingField, Vmcs

# -- what a check reads ------------------------------------------------------------------


class _AnyProcessor:
    """Answers every question about a processor, so that tracing goes on."""

    def __init__(self, asked: set[str]) -> None:
        self._asked = asked

    def __getattr__(self, name: str) -> int:
        self._asked.add(name)
        return 1


class _Tracer(View):
    """A view of symbols that notes which fields are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            self._fields[name] = None
            # The checks of MSR areas count entries.
            value = Word(64, 1) if name == "ENTRY_MSR_LOAD_COUNT" else field_symbol(name)
            self.__dict__[name] = value
            return value
        return super().__getattr__(name)


def _trace(predicates: Iterable[Callable[[View], Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    asked: set[str] = set()
    launch = Launch(x2apic=True, current_vmcs=0, vmxon_pointer=0)
    view = _Tracer({"_fields": {}}, _AnyProcessor(asked), launch)  # type: ignore[arg-type]
    for predicate in predicates:
        try:
            predicate(view)
        except (SymbolicConditionError, MissingField):
            continue
    return tuple(view._fields), tuple(sorted(asked))


@functools.cache
def subjects(check: Check) -> tuple[str, ...]:
    """The fields that the predicate itself looks at, by id, without those that only its gates do."""
    predicates = [p for p in (check.holds, check.doubt) if p is not None]
    return _trace(predicates)[0]


@functools.cache
def reads(check: Check) -> tuple[str, ...]:
    """The fields that the check looks at, its gates included."""
    predicates = [p for p in (check.holds, check.doubt) if p is not None]
    return _trace([*(gate.test for gate in check.gates), *predicates])[0]


@functools.cache
def asks(check: Check) -> tuple[str, ...]:
    """The answers of a `CapabilityView` that the check looks at."""
    predicates = [p for p in (check.holds, check.doubt) if p is not None]
    return _trace([*(gate.test for gate in check.gates), *predicates])[1]


def missing(check: Check, given: frozenset[str], otherwise: str) -> tuple[str, ...]:
    """The inputs that an undecided check lacks: fields by id, else `otherwise`.

    `given` are the ids of the known fields.
    """
    return _missing_fields(check, given) or (otherwise,)


@functools.lru_cache(maxsize=10_000)
def _missing_fields(check: Check, given: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in reads(check) if name not in given)


# -- one check ---------------------------------------------------------------------------


def violated(check: Check, view: View) -> bool | None:
    """Whether the state violates the check; None if that cannot be decided.

    A gate that is known not to hold decides, whatever else is missing; so does a predicate that holds.
    """
    unknown = False
    for gate in check.gates:
        try:
            if not gate.test(view):
                return False
        except MissingField:
            unknown = True
    try:
        if check.holds(view):
            return False
    except MissingField:
        return None
    return None if unknown else True


def _examine(
    check: Check,
    view: View,
    findings: Findings,
    undecided: list[tuple[Check, str]],
    others: Callable[[], tuple[View, View]],
) -> None:
    """Run one check with care for what is missing; `others` gives the views of the extreme processors."""
    lacking, processor = "", False
    for gate in check.gates:
        try:
            if not gate.test(view):
                return
        except MissingField as error:
            lacking, processor = lacking or error.what, processor or error.what not in FIELDS
    try:
        holds = check.holds(view)
        if holds and (check.doubt is None or check.doubt(view)):
            return
    except MissingField as error:
        if error.what in FIELDS:
            undecided.append((check, lacking or error.what))
            return
        lacking, processor, holds = lacking or error.what, True, False
    if not lacking:
        (findings.doubtful if holds else findings.violated).append(check)
        return
    answers: set[bool | None] = set()
    if processor and _decidable(check):
        answers = {violated(check, other) for other in others()}
    if answers == {True}:
        findings.violated.append(check)
    elif answers != {False}:
        undecided.append((check, lacking))
    elif check.doubt is not None:
        try:
            if not check.doubt(view):
                findings.doubtful.append(check)
        except MissingField as error:
            undecided.append((check, error.what))


def _decidable(check: Check) -> bool:
    """Whether what all processors have in common can decide a check."""
    return "revision" not in asks(check)


# -- all checks --------------------------------------------------------------------------

_ORDER: Final[Mapping[str, int]] = {name: number for number, name in enumerate(CHECKS)}
_KINDS_AT_ONCE = 256
"""So many sets of given fields are remembered."""

_Kind = tuple[frozenset[str], Launch, tuple[str, ...]]
"""The given fields, what the processor is doing, and the controls that are not in effect."""

_WORTH_COMPILING = 32
"""So many VMCSs with the same fields given pay for a compiled sieve."""


_WORTH_A_SUPERSET = 96
"""So many VMCSs with fields of their own pay for the checks of all fields."""


class Evaluator:
    """Runs checks for one processor, and gets faster on VMCSs that give the same fields.

    Args:
        capabilities: of the processor.
        checks: those to run; by default all.
    """

    def __init__(self, capabilities: Capabilities, checks: Iterable[Check] | None = None) -> None:
        """Make an evaluator; see the class."""
        self.capabilities = capabilities
        self.view = CapabilityView(capabilities)
        self.checks = tuple(CHECKS.values() if checks is None else checks)
        self._extremes = tuple(CapabilityView(extreme) for extreme in extremes(capabilities))
        self._seen: dict[_Kind, int] = {}
        self._sieves: dict[_Kind, Sieve] = {}
        self._others: dict[Launch, int] = {}
        self._supersets: dict[Launch, Superset] = {}

    def look(self, vmcs: Vmcs) -> View:
        """The view that the checks get."""
        return view_of(vmcs, self.view)

    def run(self, vmcs: Vmcs, view: View | None = None) -> Findings:
        """Run the checks on a VMCS."""
        view = view or self.look(vmcs)
        fields = vmcs.fields
        if vmcs.default is not None:
            fields = _defaults(vmcs.default) | dict(fields)
        findings, undecided = Findings([], [], ()), list[tuple[Check, str]]()
        found: list[tuple[View, View]] = []

        def others() -> tuple[View, View]:
            if not found:
                low, high = self._extremes
                found.append((view_of(vmcs, low), view_of(vmcs, high)))
            return found[0]

        # What is compiled does not know lists of MSRs.
        found_sieve = None if vmcs.areas else self._sieve_of(fields, vmcs.launch)
        superset = None if vmcs.areas or found_sieve is not None else self._superset(vmcs.launch)
        if superset is not None:
            leftover = superset.sift(fields, view)
            for check in leftover.looks:
                _examine(check, view, findings, undecided, others)
            findings.violated += leftover.failing
            findings.undecided = undecided
            findings.missed = leftover.missed
            return findings
        candidates: Iterable[Check] = self.checks
        lacking: tuple[tuple[Check, str], ...] = ()
        if found_sieve is not None:
            candidates, groups, bad = found_sieve.scan(fields)
            findings.violated += bad
            lacking = found_sieve.lacking(groups)
        for check in candidates:
            _examine(check, view, findings, undecided, others)
        findings.undecided = (
            _joined(lacking)(tuple(undecided)) if lacking and undecided else lacking or undecided
        )
        return findings

    def _sieve_of(self, fields: Mapping[str, int], launch: Launch) -> Sieve | None:
        """The sieve for VMCSs that give these fields; None as long as they are too few."""
        unused = inactive(fields)
        key = frozenset(fields), launch, unused
        found = self._sieves.get(key)
        if found is None:
            if len(self._seen) > _KINDS_AT_ONCE:
                self._seen.clear()
                self._sieves.clear()
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if seen < _WORTH_COMPILING:
                return None
            found = self._sieves[key] = sieve(
                self.checks,
                fields,
                self.view,
                launch,
                extremes=self._extremes,
                unused=unused,
                decidable=_decidable,
            )
        return found

    def _superset(self, launch: Launch) -> Superset | None:
        """The checks for any fields; None as long as few VMCSs had fields of their own."""
        found = self._supersets.get(launch)
        if found is None:
            if len(self._others) > _KINDS_AT_ONCE:
                self._others.clear()
                self._supersets.clear()
            seen = self._others[launch] = self._others.get(launch, 0) + 1
            if seen < _WORTH_A_SUPERSET:
                return None
            found = self._supersets[launch] = Superset(
                self.checks, self.view, launch, self._extremes, reads=reads, order=order
            )
        return found


@by_identity
def _joined(lacking: tuple[Lacking, ...]) -> Callable[[tuple[Lacking, ...]], tuple[Lacking, ...]]:
    """What a sieve and a look found lacking; the same object for the same findings."""
    return functools.lru_cache(maxsize=256)(lambda more: lacking + more)


@functools.lru_cache(maxsize=64)
def _defaults(default: int) -> dict[str, int]:
    """Every field with the default value."""
    return {name: default & field.mask for name, field in FIELDS.items()}


def order(check: Check) -> int:
    """The place of a check in the ledger; checks that are not in it come last."""
    return _ORDER.get(check.id, len(_ORDER))
