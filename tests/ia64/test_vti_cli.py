"""`popek assist … vt-i`: what a user sees."""

from __future__ import annotations

import json

import pytest

from popek.architectures.ia64.vti.assistance import VT_I, written
from popek.assistance.judgement import judge
from popek.cli import assist
from popek.cli.errors import UserError


def check(*what: str, vac: str | None = None, vdc: str | None = None, **options: object) -> int:
    fields = [f"{name}={value}" for name, value in (("vac", vac), ("vdc", vdc)) if value is not None]
    return assist.check("vt-i", *what, set_=tuple(fields), **options)


def answer(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_all_zero_bits_are_refuted_with_a_vmsw_witness(capsys) -> None:
    assert check(vac="0", vdc="0", json=True) == 1
    found = answer(capsys)
    assert found["schema"] == "popek/assistance-check/1"
    assert found["outcome"] == "unsafe"
    assert [rule["id"] for rule in found["broken"]] == ["V3"]
    rows = {row["form"]: row for row in found["instructions"]}
    assert rows["vmsw.0"]["verdict"] == "unsafe"
    witness = rows["vmsw.0"]["witness"]
    assert witness["assembly"] == "vmsw.0"
    assert "psr.vm 1 → 0" in witness["virtualized"]
    assert witness["native"] == "traps: Illegal Operation fault"
    # Reported, not hidden, and not the bits' fault.
    assert rows["mov r = pmd[r]"]["verdict"] == "unfaithful"
    assert rows["mov r = pmd[r]"]["governed"] is False


def test_d_vmsw_repairs_it_and_the_text_says_what_stays_open(capsys) -> None:
    assert check(vac="0", vdc="1") == 0
    text = capsys.readouterr().out
    assert text.startswith("command line: sound")
    assert "whatever the controls, not faithful: mov r = pmd[r]" in text


def test_refused_pair(capsys) -> None:
    assert check(vac="1", vdc="3", derive=False) == 1
    text = capsys.readouterr().out
    assert "rejected" in text
    assert "V1 broken (reject, confidence H)" in text


def test_a_file_is_judged_by_every_rule(tmp_path, capsys) -> None:
    file = tmp_path / "guest.toml"
    file.write_text("vac = 0x7f\nvdc = 1\n")
    assert check(str(file), derive=False, json=True) == 3
    found = answer(capsys)
    assert found["outcome"] == "undecided"
    assert "V9" in found["undecided"]
    assert "V3" in found["kept"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected a configuration: a file, a known name, or --set FIELD=VALUE"),
        ({"vac": "1"}, "expected both vac and vdc, such as --set vac=0x7f --set vdc=0x1"),
        ({"vac": "0x7g", "vdc": "0"}, "vac: expected a number such as 0x7f, not '0x7g'"),
        ({"file": "no-such.toml"}, "no-such.toml: neither a file nor a known configuration"),
        ({"file": "a.toml", "vac": "0"}, "not both"),
        ({"vac": "0", "vdc": "0", "grant": ("disk",)}, "--grant disk: expected one of"),
        ({"vac": "0", "vdc": "0", "assume": ("X=1",)}, "--assume X=1: expected NAME, NAME=0 or NAME=1"),
    ],
)
def test_bad_input_is_one_line(arguments, message) -> None:
    file = arguments.pop("file", None)
    with pytest.raises(UserError) as caught:
        check(*([file] if file else []), **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requirements_and_synthesis(capsys) -> None:
    assert assist.requirements("vt-i", json=True) == 0
    rows = {row["form"]: row for row in answer(capsys)["instructions"]}
    assert rows["vmsw.0"]["safe"] == "d_vmsw = 1 or promotion_pages = 0"
    assert rows["mov r = pmd[r]"]["faithful"] == "never"
    assert "add r = r, r" not in rows
    assert assist.requirements("vt-i") == 0
    assert "d_vmsw = 1" in capsys.readouterr().out
    assert assist.synthesize("vt-i", json=True) == 0
    found = answer(capsys)
    assert found["fields"] == {"vac": "0x7f", "vdc": "0x1"}
    assert found["open"] == ["mov r = pmd[r]", "tf r = imm8"]
    assert assist.synthesize("vt-i") == 0
    assert "left open whatever the controls: mov r = pmd[r], tf r = imm8" in capsys.readouterr().out


def test_whom_bits_harm() -> None:
    """Xen's bits keep interrupts and the timer; PMD can be read, so nobody can own the counters."""
    forms = ("mov r = cr.ivr", "mov r = pmd[r]", "mov cr.itm = r")
    found = judge(VT_I, written({"vac": "0x7f", "vdc": "1"}), forms=forms, witnesses=False)
    assert {"external-interrupts", "timer"} <= set(found.kept)
    assert [(row.form, [(h.owner, h.failure) for h in row.harms]) for row in found.rows if row.harms] == [
        ("mov r = pmd[r]", [("counters", "unfaithful")])
    ]
