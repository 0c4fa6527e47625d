"""A claim's configuration may name a setting's value by its label; a wrong one is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import popek
from popek_proofs.claims import ClaimError, parse

CLAIM = """\
id = "x"
title = "x"
source = "x"
statement = "x"
machine = "{machine}"
expected = "holds"
configuration = {{ {setting} }}
rows = [{{ subject = "{subject}", statement = "critical", expected = "holds" }}]
"""


def claim(setting: str, machine: str = "pg74", subject: str = "GMODE") -> str:
    return CLAIM.format(machine=machine, setting=setting, subject=subject)


@pytest.mark.parametrize(
    ("setting", "machine", "subject", "number"),
    [
        ('GMODE = "silent"', "pg74", "GMODE", {"GMODE": 0}),
        ('GMODE = "Traps"', "pg74", "GMODE", {"GMODE": 1}),
        ("GMODE = 0", "pg74", "GMODE", {"GMODE": 0}),
        ('gmode = "silent"', "pg74", "GMODE", {"GMODE": 0}),
        ('MODE = "64-bit"', "x86-64", "SGDT", {"MODE": 1}),
    ],
)
def test_a_label_is_its_number(setting: str, machine: str, subject: str, number: dict[str, int]) -> None:
    (found,) = parse(claim(setting, machine, subject), "x.toml")
    assert found.configuration == number


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            'GMODE = "silnt"',
            "GMODE = 'silnt': GMODE is one of 0 (silent), 1 (traps) (did you mean silent?)",
        ),
        ("GMODE = 2", "GMODE = 2: GMODE is one of 0 (silent), 1 (traps)"),
        ('GMODE = "?"', "GMODE = '?': GMODE is one of 0 (silent), 1 (traps)"),
        ('GMOD = "silent"', "unknown setting of pg74 'GMOD'; did you mean GMODE"),
        ('GMODE = "silent", gmode = 1', "gmode: GMODE is given twice"),
    ],
)
def test_a_wrong_one_is_told_in_one_line(setting: str, told: str) -> None:
    with pytest.raises(ClaimError) as error:
        parse(claim(setting), "x.toml")
    assert str(error.value).startswith(f"x.toml: configuration: {told}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["true", "0.5", "[0]"])
def test_neither_a_number_nor_a_label(value: str) -> None:
    with pytest.raises(ClaimError, match="expected a whole number or a label of the setting"):
        parse(claim(f"GMODE = {value}"), "x.toml")


def test_the_command_line_tells_it_and_decides_by_it(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(claim('GMODE = "silent"'), encoding="utf-8")
    (tmp_path / "bad.toml").write_text(claim('GMODE = "silnt"'), encoding="utf-8")
    assert popek("check", "./good.toml", folder=tmp_path).returncode == 0
    ran = popek("check", "./bad.toml", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "did you mean silent?" in ran.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('statement = "critical"', f'statement = "{"x" * 5000}"'),
        ("GMODE = 0", f'GMODE = "{"x" * 5000}"'),
        ("title", "x" * 5000),
        ('expected = "holds"', f'expected = "{"x" * 5000}"'),
    ],
)
def test_a_message_stays_a_line_however_long_the_value(old: str, new: str) -> None:
    text = claim("GMODE = 0")
    assert old in text
    with pytest.raises(ClaimError) as error:
        parse(text.replace(old, new), "x.toml")
    assert len(str(error.value)) < 1000
