"""`popek vmcs decode`, `explain` and `diff`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from popek.architectures.vtx.dumps.explanation import explain
from popek.architectures.vtx.entry_checks import CHECKS, NOT_CHECKED, NOT_MODELLED
from popek.architectures.vtx.fields import FIELDS
from popek.cli.errors import UserError
from popek.cli.vmcs import app

FOLDER = Path(__file__).parent / "dumps"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*args: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setenv("COLUMNS", "100")
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


def path(number: str) -> str:
    (found,) = FOLDER.glob(f"{number}-*.txt")
    return str(found)


def test_decode_prints_every_field(run: Run) -> None:
    code, out = run("decode", path("10"))
    assert code == 0
    data = json.loads(run("decode", path("10"), "--json")[1])
    assert len(data["fields"]) == 109
    for name, entry in data["fields"].items():
        assert name in out
        assert f"0x{int(entry['value'], 16):0{FIELDS[name].width // 4}x}" in out
    flat = " ".join(out.split())
    assert "31 VALID 1" in flat  # IDT vectoring: an interrupt was being delivered
    assert "guest_efer_effective 0x0000000000000d01" in flat


def test_decode_shows_single_bits(run: Run) -> None:
    _, out = run("decode", "-", stdin="GUEST_RFLAGS = 0x202\nPIN_CONTROLS = 0x16\n")
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["9", "IF", "1"] in rows
    assert ["8", "TF", "0"] in rows
    assert ["0", "EXTERNAL_INTERRUPT_EXITING", "0"] in rows


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        # WB, WT, UC-, UC; and the order of the eight types from low to high.
        (
            "GUEST_IA32_PAT = 0x0007040600070406",
            [["7:0", "PA0", "6"], ["15:8", "PA1", "4"], ["55:48", "PA6", "7"]],
        ),
        (
            "GUEST_CR3 = 0x8000000000001005",
            [["11:0", "LOW", "5"], ["51:12", "FRAME", "1"], ["63", "NO_FLUSH", "1"]],
        ),
        ("GUEST_DR7 = 0x00030402", [["1", "G0", "1"], ["17:16", "RW0", "3"], ["10", "RESERVED_10", "1"]]),
        ("GUEST_PDPTE0 = 0x5f18a001", [["0", "P", "1"], ["51:12", "FRAME", "0x5f18a"]]),
        (
            "EXCEPTION_BITMAP = 0x60042",
            [["1", "DB", "1"], ["6", "UD", "1"], ["17", "AC", "1"], ["14", "PF", "0"]],
        ),
        ("GUEST_INTERRUPT_STATUS = 0xec00", [["15:8", "SVI", "0xec"], ["7:0", "RVI", "0"]]),
        (
            "GUEST_IA32_S_CET = 0x1c02",
            [["1", "WR_SHSTK_EN", "1"], ["10", "SUPPRESS", "1"], ["63:12", "BITMAP", "1"]],
        ),
        ("CR0_GUEST_HOST_MASK = 0xfffffffffffffff7", [["63:32", "-", "1"], ["3", "TS", "0"]]),
    ],
)
def test_decode_of_registers(run: Run, line: str, rows: list[list[str]]) -> None:
    _, out = run("decode", "-", stdin=line)
    printed = [row.split()[:3] for row in out.splitlines()]
    for row in rows:
        assert row in printed


def test_the_vector_of_an_interrupt_names_no_exception(run: Run) -> None:
    _, out = run("decode", "-", stdin="ENTRY_INTR_INFO = 0x8000000d\nIDT_VECTORING_INFO = 0x80000b0d\n")
    assert out.count("#GP") == 1


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("GUEST-CR-09", ["GUEST_CR3", "E.3.1.1", "exit reason 33"]),
        ("guest-cr-09", ["GUEST_CR3"]),
        ("CTL-IOBM-01", ["IO_BITMAP_A", "VM-instruction error 7"]),
        ("GUEST_CR3", ["0x6802", "natural width", "GUEST-CR-09"]),
        ("0x6802", ["GUEST_CR3"]),
        ("0x2001", ["IO_BITMAP_A"]),
        ("sec[7]", ["UNRESTRICTED_GUEST", "SECONDARY_PROC_CONTROLS", "CTL-EPT-06"]),
        ("UNRESTRICTED_GUEST", ["bit 7 of SECONDARY_PROC_CONTROLS"]),
        ("CR4.PCIDE", ["bit 17 of GUEST_CR4", "bit 17 of HOST_CR4"]),
        ("EPT_VIOLATION", ["48"]),
    ],
)
def test_explain(run: Run, subject: str, words: list[str]) -> None:
    code, out = run("explain", subject)
    assert code == 0
    flat = " ".join(out.split())
    for word in words:
        assert word in flat


def test_every_check_and_field_can_be_explained() -> None:
    for name in [*CHECKS, *NOT_CHECKED, *NOT_MODELLED, *FIELDS]:
        (found,) = explain(name)
        assert found.name == name
        assert all(text for _, text in found.rows)


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("GUEST-CR-99", "GUEST-CR-09"),
        ("GUEST_CR33", "GUEST_CR3"),
        ("UNRESTRICTED_GEST", "UNRESTRICTED_GUEST"),
        ("CTL-IOBM", "CTL-IOBM-01"),
        ("EPT_VIOLATON", "EPT_VIOLATION"),
    ],
)
def test_explain_offers_near_matches(run: Run, typed: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        run("explain", typed)
    assert near in str(caught.value).split("did you mean")[1]


@pytest.mark.parametrize("typed", ["", " ", "xyzzy", "\0", "0x", "pin[", "a" * 100_000])
def test_explain_survives_anything(run: Run, typed: str) -> None:
    with pytest.raises(UserError) as caught:
        run("explain", typed)
    assert len(str(caught.value)) < 400


def test_diff_shows_the_bits_that_differ(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("GUEST_RFLAGS = 0x2\nENTRY_INTR_INFO = 0x800000d1\nVPID = 0x1\n")
    second.write_text("GUEST_RFLAGS = 0x202\nENTRY_INTR_INFO = 0x800000d1\nGUEST_CR3 = 0x0\n")
    code, out = run("diff", str(first), str(second))
    flat = " ".join(out.split())
    assert code == 1
    assert "1 field differs" in flat
    assert "GUEST_RFLAGS 0x2 → 0x202" in flat
    assert "IF[9] 0x0 → 0x1" in flat
    assert "ENTRY_INTR_INFO 0x" not in flat
    assert "Only in the first: 1 field VPID" in flat
    assert "Only in the second: 1 field GUEST_CR3" in flat
    verdicts = flat.split("Verdicts")[1]
    assert "GUEST-RFL-05" in verdicts.split("second:")[0]
    assert "GUEST-RFL-05" not in verdicts.split("second:")[1]


def test_diff_of_a_dump_with_itself(run: Run) -> None:
    code, out = run("diff", path("10"), path("10"))
    assert code == 0
    assert "The fields are the same." in out


def test_diff_needs_two_single_dumps(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only one of the two"):
        run("diff", "-", "-")
    both = tmp_path / "both"
    both.write_text(Path(path("03")).read_text() + Path(path("10")).read_text())
    with pytest.raises(UserError, match="holds 2 dumps"):
        run("diff", path("03"), str(both))
