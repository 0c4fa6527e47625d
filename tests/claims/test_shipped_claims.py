"""Every claim that comes with popek turns out as expected; and a wrong one is noticed."""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import pytest

from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.verdict import Status
from popek.kernel.instruction import Instruction
from popek_proofs.claim_checks import evaluate
from popek_proofs.claims import (
    PREMISES,
    THEOREM_1,
    THEOREM_3,
    Claim,
    ClaimError,
    ClaimVerdict,
    RowClaim,
    parse,
    select,
    shipped,
)

CLAIMS = shipped()
HARD = str(Path(__file__).parents[1] / "hard_machine.py")
CHEAP = [name for name, claim in CLAIMS.items() if claim.machine == "pg74"]
OTHER = {Status.HOLDS: Status.REFUTED, Status.REFUTED: Status.HOLDS}


@cache
def verdict(name: str) -> ClaimVerdict:
    (found,) = evaluate([CLAIMS[name]], jobs=1)  # the tests themselves run in several processes
    return found


@pytest.mark.parametrize("name", CLAIMS)
def test_a_shipped_claim_turns_out_as_expected_in_every_row(name: str) -> None:
    found = verdict(name)
    otherwise = [
        f"{row.claim.subject} {row.claim.statement}: {row.verdict.value}"
        for row in found.rows
        if row.unexpected
    ]
    assert otherwise == []
    unknown = {row.claim.subject for row in found.rows if row.verdict is Status.UNKNOWN}
    assert unknown == {row.subject for row in CLAIMS[name].rows if row.expected is Status.UNKNOWN}
    assert found.verdict is CLAIMS[name].expected


def test_robin_and_irvine_are_found_by_name_in_both_techniques() -> None:
    named = {"SGDT", "SIDT", "SLDT", "SMSW", "PUSHF", "POPF", "LAR", "LSL", "VERR", "VERW", "POP", "PUSH", "CALL",
             "JMP", "INT", "RET", "STR", "MOV"}  # fmt: skip
    for name in ("ia32.robin-irvine-2000", "ia32.robin-irvine-2000-0-3-3"):
        claim = next(claim for claim in CLAIMS.values() if claim.id == name)
        critical = {row.subject for row in claim.rows if row.statement == "critical"}
        assert {subject.split()[0] for subject in critical} >= named, name


def test_every_claim_has_a_source_and_says_what_it_expects() -> None:
    for claim in CLAIMS.values():
        assert claim.source.strip()
        assert claim.rows or claim.statement in PREMISES, claim.id


def test_no_two_claims_share_an_id_and_every_file_is_read() -> None:
    files = [f for f in (resources.files("popek_specs") / "claims").iterdir() if f.name.endswith(".toml")]
    ids: Counter[str] = Counter()
    for file in files:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        ids.update(one["id"] for one in data.get("claims", [data]))
    assert set(ids) == set(CLAIMS)
    assert max(ids.values()) == 1


def test_no_row_is_said_twice_of_one_subject() -> None:
    for claim in CLAIMS.values():
        said = Counter((row.subject, row.statement) for row in claim.rows)
        assert [row for row, count in said.items() if count > 1] == [], claim.id


# -- a wrong claim is noticed ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CHEAP)
def test_a_claim_that_expects_the_opposite_is_unexpected(name: str) -> None:
    wrong = attrs.evolve(CLAIMS[name], expected=OTHER[CLAIMS[name].expected])
    (found,) = evaluate([wrong], jobs=1)
    assert found.unexpected
    assert not any(row.unexpected for row in found.rows)


@pytest.mark.parametrize("name", CHEAP)
def test_every_row_that_says_the_opposite_is_unexpected(name: str) -> None:
    claim = CLAIMS[name]
    wrong = attrs.evolve(claim, rows=tuple(map(_denied, claim.rows)))
    (found,) = evaluate([wrong], jobs=1)
    assert [row.claim.subject for row in found.rows if not row.unexpected] == []


def _denied(row: RowClaim) -> RowClaim:
    statement = row.statement
    opposite = statement.removeprefix("not ") if statement.startswith("not ") else f"not {statement}"
    return attrs.evolve(row, statement=opposite)


@pytest.mark.parametrize(
    ("subject", "statement"),
    [
        ("SMSW", "privileged"),
        ("LGDT", "critical"),
        ("ADD", "sensitive"),
        ("HLT", "not privileged"),
        ("PUSHF", "innocuous"),
        ("STR", "not resource-sensitive"),
    ],
)
def test_a_false_statement_about_ia32_is_refuted(subject: str, statement: str) -> None:
    row = RowClaim(subject, statement, Status.HOLDS)
    claim = Claim(
        "wrong", "Wrong", "nobody", "so I say", "ia32", Status.HOLDS, "ring-deprivileging-0/1/3", rows=(row,)
    )
    (found,) = evaluate([claim], jobs=1)
    assert found.verdict is Status.REFUTED
    assert found.unexpected


def test_a_mnemonic_is_critical_when_some_form_is_and_privileged_when_every_form_is() -> None:
    """RDPMC and CLI aside, `MOV r32, Sreg` makes "MOV sreg" critical; one silent form unmakes "privileged"."""
    text = """
        id = "x"
        title = "x"
        source = "x"
        statement = "x"
        machine = "pg74"
        expected = "holds"
        configuration = { GMODE = 0 }
        rows = [
            { subject = "GMODE", statement = "not privileged", expected = "holds" },
            { subject = "GMODE", statement = "critical", expected = "holds" },
            { subject = "GREL", statement = "privileged", expected = "holds" },
        ]
    """
    (found,) = evaluate(parse(text, "x.toml"), jobs=1)
    assert [row.verdict for row in found.rows] == [Status.HOLDS] * 3
    assert found.verdict is Status.HOLDS


def test_promises_are_asked_of_the_forms_that_rows_promise_something_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A promise costs several times what the classes do, and a premise speaks of the whole machine."""
    asked: list[str] = []

    def keeps(self: Keeper[Any], instruction: Instruction, run: Any = None) -> Promises[Any]:
        asked.append(instruction.form)
        return original(self, instruction, run)

    original = Keeper.keeps
    monkeypatch.setattr(Keeper, "keeps", keeps)
    rows = (RowClaim("DROP", "not faithful", Status.HOLDS), RowClaim("ADD", "innocuous", Status.HOLDS))
    claim = Claim("x", "x", "x", THEOREM_1, "pg74", Status.REFUTED, configuration={"DROP": 0}, rows=rows)
    (found,) = evaluate([claim], jobs=1)
    assert not found.unexpected
    assert not found.unknown
    assert asked == ["DROP a"]


def test_each_row_has_a_witness_of_its_own_subject() -> None:
    """PUSH CS and PUSH SS are forms of one mnemonic; the row about the mnemonic takes the first that is critical."""
    subjects = ("PUSH SS", "PUSH sreg", "PUSH CS")
    rows = tuple(RowClaim(subject, "critical", Status.HOLDS) for subject in subjects)
    claim = Claim("x", "x", "x", "x", "ia32", Status.HOLDS, "ring-deprivileging-0/1/3", rows=rows)
    (found,) = evaluate([claim], jobs=1)
    assert found.verdict is Status.HOLDS
    shown = {row.claim.subject: row.witness["assembly"] for row in found.rows if row.witness is not None}
    assert shown == {"PUSH SS": "PUSH SS", "PUSH sreg": "PUSH CS", "PUSH CS": "PUSH CS"}


def test_a_premise_as_statement_is_decided_by_the_whole_machine_and_not_by_its_rows() -> None:
    row = RowClaim("ADD", "innocuous", Status.HOLDS)
    for statement, expected in ((THEOREM_1, Status.REFUTED), (THEOREM_3, Status.HOLDS)):
        claim = Claim("x", "x", "x", statement, "pg74", expected, configuration={"DROP": 0}, rows=(row,))
        (found,) = evaluate([claim], jobs=1)
        assert found.verdict is expected
        assert not found.unexpected
        assert found.others == (("DROP",) if statement == THEOREM_1 else ())


def test_a_tiny_time_limit_makes_a_claim_unknown_and_neither_held_nor_refuted() -> None:
    row = RowClaim("FACTOR", "mode-sensitive", Status.HOLDS)
    claim = Claim("x", "x", "x", "x", HARD, Status.HOLDS, rows=(row,))
    (found,) = evaluate([claim], timeout=0.1, jobs=1)
    assert found.unknown
    assert not found.unexpected


def test_claims_are_selected_by_id_and_an_unknown_one_gets_near_matches() -> None:
    assert [claim.id for claim in select(["pg74.hybrid"])] == ["pg74.hybrid"]
    with pytest.raises(ClaimError, match=r"unknown claim 'pg74\.hybird'; did you mean pg74\.hybrid"):
        select(["pg74.hybird"])
