"""A checker over answers: what the parts of one answer say of one VM entry does not contradict itself."""

from __future__ import annotations

import io
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from answers import contradictions_of, repair_contradicts
from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps import Dump, read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose, vmcs_of
from popek.architectures.vtx.entry_checks import CHECKS
from popek.architectures.vtx.verdict import reported_outcome
from popek.report.vmcs import print_check
from popek.report.vmcs_repair import print_repair
from popek.vmcs.repair import repair

FOLDER = Path(__file__).parent / "dumps"
SKYLAKE = load_capabilities("intel-skylake")
REAL = [
    dump
    for path in sorted(FOLDER.glob("[!3]*.txt"))
    for dump in read_dumps(path.read_bytes(), path.name)
    if dump.fields
]
WHOLE = Dump("whole", "JSON", 1, dict(baseline("64-bit", SKYLAKE).fields))
DUMPS = [*REAL, WHOLE]


def printed(dump: Dump, known: Capabilities) -> str:
    out = io.StringIO()
    print_check(Console(file=out, width=100, highlight=False, markup=False), diagnose(dump, known))
    return " ".join(out.getvalue().split())


def contradictions(dump: Dump, known: Capabilities) -> list[str]:
    """What is wrong with the answer to a dump."""
    found = diagnose(dump, known)
    verdict, text = found.verdict, printed(dump, known)
    report = reported_outcome(vmcs_of(dump))
    wrong: list[str] = []

    def never(bad: object, what: str) -> None:
        if bad:
            wrong.append(what)

    wrong += contradictions_of(text)
    never((found.label == "FAILS") != bool(verdict.failed), "fails without a failed check, or the reverse")
    never(found.label == "ENTERS" and (verdict.failed or found.suspects), "enters although something fails")
    never(found.label == "ENTERS" and verdict.outcome.kind != "enters", "enters, and the outcome is another")
    never(
        {item.id for item in verdict.failed} & {item.id for item in verdict.undecided}, "failed and undecided"
    )
    never({item.id for item in found.suspects} & {item.id for item in verdict.failed}, "suspect and failed")
    never(
        {item.id for item in found.near_misses} & {item.id for item in verdict.failed}, "near miss and failed"
    )
    if verdict.outcome.kind not in ("undecided", "vmfail-valid"):
        never(verdict.outcome not in verdict.admissible, "the outcome is not admissible")
    elif verdict.outcome.kind == "vmfail-valid":
        admitted = {error for outcome in verdict.admissible for error in outcome.errors}
        never(not set(verdict.outcome.errors) <= admitted, "an error that is not admissible")
    failure = report is not None and report.kind != "enters"
    never(
        failure and found.label == "ENTERS" and "does not explain" not in text, "enters, against the report"
    )
    never(failure and "reports none" in text, "reports a failure, and none")
    never(failure and found.happening.kind == "no-entry-failure", "reports a failure, and an entry")
    never(report is not None and report.kind == "enters" and found.agreement == "The failed checks explain this.",
          "explains an entry by failed checks")  # fmt: skip
    never("\n" in found.next_step, "a next step of several lines")
    return wrong


@pytest.mark.parametrize("known", [UNKNOWN, SKYLAKE], ids=["unknown", "skylake"])
@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.name[:12])
def test_real_answers_do_not_contradict_themselves(dump: Dump, known: Capabilities) -> None:
    assert contradictions(dump, known) == []


REPORTS = st.fixed_dictionaries(
    {},
    optional={
        "EXIT_REASON": st.sampled_from([0, 1, 7, 12, 33, 48, 0x80000021, 0x80000022, 0x80000029]),
        "EXIT_QUALIFICATION": st.sampled_from([0, 1, 2, 3, 4, 5]),
        "VM_INSTRUCTION_ERROR": st.sampled_from([0, 4, 5, 7, 8, 12, 26]),
    },
)


@settings(deadline=None, max_examples=60)
@given(
    dump=st.sampled_from(DUMPS),
    report=REPORTS,
    kept=st.floats(0, 1),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 63)), max_size=2),
    known=st.sampled_from([UNKNOWN, SKYLAKE]),
)
def test_no_answer_contradicts_itself(
    dump: Dump, report: dict[str, int], kept: float, flips: list[tuple[int, int]], known: Capabilities
) -> None:
    fields = {
        name: value
        for number, (name, value) in enumerate(dump.fields.items())
        if (number * 7919 % 101) / 101 <= kept and name not in ("EXIT_REASON", "VM_INSTRUCTION_ERROR")
    }
    names = list(fields)
    for place, bit in flips:
        if names:
            name = names[place % len(names)]
            fields[name] ^= 1 << bit % 16
    changed = attrs.evolve(dump, fields={**fields, **report}, reported={}, entered=False)
    assert contradictions(changed, known) == []


@pytest.mark.parametrize(
    "report",
    [
        {"EXIT_REASON": 0x80000021, "EXIT_QUALIFICATION": 0}, {"EXIT_REASON": 0x80000022, "EXIT_QUALIFICATION": 1},
        {"VM_INSTRUCTION_ERROR": 7}, {"VM_INSTRUCTION_ERROR": 8, "EXIT_REASON": 1},
    ],
)  # fmt: skip
def test_repair_never_has_nothing_to_change_where_a_failure_is_reported(report: dict[str, int]) -> None:
    fields = {
        name: value
        for name, value in WHOLE.fields.items()
        if name not in ("EXIT_REASON", "VM_INSTRUCTION_ERROR")
    }
    dump = attrs.evolve(WHOLE, fields={**fields, **report})
    found = repair(vmcs_of(dump), SKYLAKE)
    out = io.StringIO()
    print_repair(Console(file=out, width=100), dump.name, found)
    assert repair_contradicts(out.getvalue(), reported=True) == []
    assert found.unexplained
    assert found.to_json()["repairable"] is None


def test_a_pass_is_said_of_what_was_decided() -> None:
    """Two fields, and a reported failure: 281 checks and more lack something, so not every check passes."""
    dump = read_dumps(b"GUEST_RFLAGS = 0x2\nEXIT_REASON = 0x80000022\n", "paste")[0]
    text = printed(dump, UNKNOWN)
    assert "every check passes" not in text
    found = diagnose(dump, UNKNOWN)
    count = len(found.verdict.undecided)
    assert count > 250
    assert f"{len(CHECKS) - count} checks pass" in text


def test_a_state_that_fails_is_not_said_to_have_entered() -> None:
    """Exit reason 48 with error 0 tells of a VM exit; RFLAGS[1] = 0 cannot have been entered."""
    text = "GUEST_RFLAGS = 0\nEXIT_REASON = 0x30\nVM_INSTRUCTION_ERROR = 0\n"
    said = printed(read_dumps(text.encode(), "paste")[0], UNKNOWN)
    assert contradictions_of(said) == []
    assert "exit reason 48 (EPT violation) is that of a VM exit" in said
    assert "after another state than this" in said
    said = printed(read_dumps(text.replace("= 0\n", "= 2\n", 1).encode(), "paste")[0], UNKNOWN)
    assert "the last VM entry succeeded" in said


def test_the_checker_notices_what_it_is_for() -> None:
    assert contradictions_of("FAILS VM-entry failure. the last VM entry succeeded") != []
    assert contradictions_of("VMEXIT_INVALID  1 check fails\nthe last VMRUN entered the guest") != []
    assert contradictions_of("every check passes; 281 checks lack inputs") != []
    assert contradictions_of("no check fails of the 9; the last VMRUN entered the guest") == []
    assert repair_contradicts("Nothing has to change: every check passes.", reported=True) != []
