"""A long proof goes to drat-trim where it is installed; here a program of that name says what it would."""

from __future__ import annotations

from pathlib import Path

import pytest

from popek.checks.verdict import Question
from popek.kernel.words import symbol
from popek.solving import certificate, drat_trim
from popek.solving.proof_checker import ProofError

SAYS_YES = 'echo "c 2 of 5 lemmas in core using 9 resolution steps"; echo; echo "s VERIFIED"'
SAYS_NO = 'echo "c ERROR: conflict claimed, but not detected"; echo "s NOT VERIFIED"; exit 1'
# It reads both files before it says yes.
READS = 'grep -q "^p cnf" "$1" && tail -n 1 "$2" | grep -qx 0 || exit 1\n'


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program is; it is the only one of its name."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / drat_trim.PROGRAM


def install(program: Path, does: str) -> None:
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)


def question() -> certificate.Certificate:
    a, b = symbol("a", 4), symbol("b", 4)
    asked = Question("a law", [a * (b + 1) != a * b + a])
    return certificate.certify(asked.smtlib, [word.term for word in asked.conditions])


def test_a_long_proof_is_checked_by_it_and_counted(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(installed, READS + SAYS_YES)
    assert certificate.BY_DRAT_TRIM not in question().figures
    monkeypatch.setattr(certificate, "LONG", 1)
    figures = question().figures
    assert (figures[certificate.BY_DRAT_TRIM], figures["needed"]) == (1, 2)


def test_what_it_does_not_accept_is_wrong(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(installed, SAYS_NO)
    monkeypatch.setattr(certificate, "LONG", 1)
    with pytest.raises(certificate.RefutedError, match="drat-trim says 's NOT VERIFIED'"):
        question()


@pytest.mark.parametrize(
    "does", ["exit 3", "true", SAYS_YES.replace("VERIFIED", "TIMEOUT"), SAYS_YES + "; exit 1"]
)
def test_only_its_word_counts(does: str, installed: Path) -> None:
    install(installed, does)
    with pytest.raises(ProofError, match="drat-trim says"):
        drat_trim.check("p cnf 1 0\n", "0\n")


def test_without_it_the_small_checker_does(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drat_trim.shutil, "which", lambda name: None)
    monkeypatch.setattr(certificate, "LONG", 1)
    assert certificate.BY_DRAT_TRIM not in question().figures
