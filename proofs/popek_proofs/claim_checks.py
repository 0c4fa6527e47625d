"""Claims checked: the survey that decides each, and what it says of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from popek.checks.subject import Subject
from popek.checks.survey import Request, Survey, SurveyRow, survey
from popek.checks.verdict import Status, Truth, both, either, negate
from popek.kernel.machine import Machine

from .claims import PREMISES, PROMISES, THEOREM_1, THEOREM_3, Claim, ClaimVerdict, RowClaim, RowVerdict


def evaluate(
    claims: Sequence[Claim],
    *,
    timeout: float = 0.0,
    jobs: int = 0,
    certify: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ClaimVerdict]:
    """Check claims.

    Args:
        timeout: seconds a single question may take; 0 for no bound but the solver's own.
        jobs: processes; 0 for one per processor.
        certify: a folder in which certificates are kept, and looked for; None if none are asked for.
        progress: called with the number of forms that are done and of all.
    """
    surveys = [prepared(claim, timeout) for claim in claims]
    total = sum(len(forms) for _, _, forms in surveys)
    finished = 0
    verdicts = []
    for claim, request, forms in surveys:
        base = finished

        def step(done: int, _: int, base: int = base) -> None:
            if progress is not None:
                progress(base + done, total)

        found = survey(attrs.evolve(request, certify=certify), forms=forms, jobs=jobs, progress=step)
        finished += len(forms)
        verdicts.append(_verdict(claim, request.subject.machine, found))
    return verdicts


def prepared(claim: Claim, timeout: float) -> tuple[Claim, Request, list[str]]:
    """The survey that decides a claim: of all instructions if it speaks of them, else of those it names."""
    settings = [f"{name}={value}" for name, value in claim.configuration.items()]
    subject = Subject.of(
        claim.machine, claim.technique, settings, timeout=timeout, time_is_state=claim.time_is_state
    )
    machine = subject.machine
    spoken_of = [(row, frozenset(i.form for i in machine.find(row.subject))) for row in claim.rows]
    promises = [forms for row, forms in spoken_of if row.statement.rpartition(" ")[2] in PROMISES]
    request = Request(
        subject,
        components=False,
        promises=frozenset[str]().union(*promises),
        witnesses=tuple(dict.fromkeys(forms for _, forms in spoken_of)),
    )
    if claim.statement in PREMISES:
        return claim, request, list(machine.instructions)
    named = frozenset[str]().union(*(forms for _, forms in spoken_of))
    return claim, request, [form for form in machine.instructions if form in named]


def _verdict(claim: Claim, machine: Machine[Any], found: Survey) -> ClaimVerdict:
    by_form = {row.form: row for row in found.rows}
    rows = tuple(_row(row, [by_form[i.form] for i in machine.find(row.subject)]) for row in claim.rows)
    if claim.statement == THEOREM_1:
        verdict = found.theorem1
    elif claim.statement == THEOREM_3:
        verdict = found.theorem3
    else:
        total = Truth.YES
        for row in rows:
            total = both(
                total, {Status.HOLDS: Truth.YES, Status.REFUTED: Truth.NO}.get(row.verdict, Truth.UNKNOWN)
            )
        verdict = Status.of(total)
    premise = PREMISES.get(claim.statement, "critical")
    critical = found.mnemonics(premise)
    named = {i.mnemonic for row in claim.rows for i in machine.find(row.subject)}
    forms = sum(1 for row in found.rows if row.classes[premise] is Truth.YES)
    others = tuple(m for m in critical if m not in named)
    return ClaimVerdict(claim, verdict, rows, others, len(critical), forms, found.seconds, found.ladder)


def _row(claim: RowClaim, rows: Sequence[SurveyRow]) -> RowVerdict:
    sign, _, adjective = claim.statement.rpartition(" ")
    answers = {row.form: _answer(row, adjective) for row in rows}
    # A mnemonic is critical when some form is; it is privileged, or harmless, when every form is.
    universal = adjective in ("privileged", "innocuous", *PROMISES)
    total = Truth.YES if universal else Truth.NO
    for answer in answers.values():
        total = both(total, answer) if universal else either(total, answer)
    verdict = Status.of(negate(total) if sign == "not" else total)
    promise = PROMISES.get(adjective)
    if promise is not None:
        breaches = (row.breaches[promise] for row in rows if promise in row.breaches)
        return RowVerdict(claim, verdict, answers, None, next(breaches, ""))
    witness = next((row.witness for row in rows if row.witness is not None), None)
    return RowVerdict(claim, verdict, answers, witness)


def _answer(row: SurveyRow, adjective: str) -> Truth:
    name = adjective.replace("-", "_")
    if name in row.classes:
        return row.classes[name]
    answer = row.faithful if name == "faithful" else row.safe
    return Truth.UNKNOWN if answer is None else answer
