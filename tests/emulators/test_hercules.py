"""The Hercules harness gives what the Principles of Operation say, and says clearly what is wrong.

The expected values come from GA22-7000, not from the harness.
"""

from __future__ import annotations

import struct

import pytest

from popek.emulators import programs
from popek.emulators.hercules import (
    CODE,
    CPU_ID,
    KEY_BLOCKS,
    WINDOWS,
    HerculesCase,
    HerculesError,
    HerculesResult,
    run_steps,
)

pytestmark = pytest.mark.emulator("hercules")

PROBLEM, EXTENDED, KEY_8 = 0x00010000 << 32, 0x00080000 << 32, 0x00800000 << 32
AREA = 0x4000  # in the third window


def case(
    code: str,
    psw: int = 0,
    *,
    gr: dict[int, int] | None = None,
    cr: dict[int, int] | None = None,
    **kwargs: object,
) -> HerculesCase:
    windows = tuple(bytes(size) for _, size in WINDOWS)
    general = tuple((gr or {}).get(i, 0) for i in range(16))
    control = tuple((cr or {}).get(i, 0) for i in range(16))
    keys = kwargs.get("keys", (0,) * len(KEY_BLOCKS))
    assert isinstance(keys, tuple)
    return HerculesCase(bytes.fromhex(code), psw | CODE, general, control, keys, windows)


def code_of(result: HerculesResult) -> int:
    """The interruption code of the BC mode."""
    return result.old_psw >> 32 & 0xFFFF


def byte(result: HerculesResult, address: int) -> int:
    for (start, size), content in zip(WINDOWS, result.windows, strict=True):
        if start <= address < start + size:
            return content[address - start]
    raise AssertionError(f"{address:#x} is in no window")


def test_control_instructions_are_privileged() -> None:
    codes = {
        "SSK": "0812", "ISK": "0912", "SSM": "80004000", "LPSW": "82004000", "DIAGNOSE": "83000000",
        "SIO": "9c000000", "TIO": "9d000000", "HIO": "9e000000", "TCH": "9f000000", "STNSM": "acff0200",
        "STOSM": "ad000200", "SIGP": "ae010001", "LRA": "b1120000", "STIDP": "b2020200", "STIDC": "b2030000",
        "SCK": "b2040200", "SCKC": "b2060200", "STCKC": "b2070200", "SPT": "b2080200", "STPT": "b2090200",
        "SPKA": "b20a0000", "IPK": "b20b0000", "PTLB": "b20d0000", "SPX": "b2100200", "STPX": "b2110200",
        "STAP": "b2120200", "RRB": "b2130200", "STCTL": "b6000200", "LCTL": "b7000200",
    }  # fmt: skip
    results = run_steps([case(code, PROBLEM) for code in codes.values()])
    seen = {name: (r.kind, code_of(r)) for name, r in zip(codes, results, strict=True)}
    assert seen == dict.fromkeys(codes, ("program", 2))


def test_an_instruction_that_completes_meets_the_next_one() -> None:
    (result,) = run_steps([case("1812", PROBLEM | KEY_8, gr={2: 0xDEADBEEF})])
    assert result.kind == "svc"
    assert result.gr[1] == result.gr[2] == 0xDEADBEEF
    assert result.old_psw == PROBLEM | KEY_8 | 0x40000000 | CODE + 4


def test_storing_needs_a_key_that_matches() -> None:
    cases = [
        case("92550000".replace("0000", "1000"), KEY_8, gr={1: AREA}, keys=(0, key, 0, 0))
        for key in (0x40, 0x48)
    ]
    matching, other = run_steps(cases)
    assert (matching.kind, byte(matching, AREA)) == ("svc", 0x55)
    assert (other.kind, code_of(other), byte(other, AREA)) == ("program", 4, 0)


def test_the_ec_mode_stores_the_code_apart() -> None:
    (result,) = run_steps([case("0812", EXTENDED, gr={2: 1})])
    assert result.kind == "program"
    assert result.old_psw == EXTENDED | CODE + 2
    assert result.assigned[12:16] == bytes((0, 2, 0, 6))


def test_cpu_id_control_registers_and_keys_are_reported() -> None:
    stidp, keys = run_steps(
        [case("b2021000", gr={1: AREA}, cr={8: 0x1234}), case("0812", gr={1: 0x7C, 2: AREA})]
    )
    stored = bytes(byte(stidp, AREA + i) for i in range(8))
    assert struct.unpack(">Q", stored) == (CPU_ID,)
    assert stidp.cr[8] == 0x1234
    assert keys.keys == (0, 0x3E, 0, 0)


def test_results_do_not_depend_on_earlier_cases() -> None:
    store, look = case("92ff1000", gr={1: AREA}), case("43201000", gr={1: AREA})
    alone = run_steps([look])[0]
    assert run_steps([store, look])[1] == alone


def test_bad_cases_are_refused() -> None:
    good = case("1812")
    with pytest.raises(ValueError, match="windows of"):
        run_steps([HerculesCase(good.instruction, CODE, good.gr, good.cr, good.keys, (b"",))])
    with pytest.raises(ValueError, match="expected 2, 4 or 6"):
        run_steps([HerculesCase(b"\x18", CODE, good.gr, good.cr, good.keys, good.windows)])
    with pytest.raises(ValueError, match="room for 8192"):
        run_steps([good], tables=bytes(8193))


def test_a_missing_emulator_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda _: None)
    with pytest.raises(HerculesError, match=r"^hercules was not found: apt-get install hercules$"):
        run_steps([case("1812")])


def test_a_case_that_stops_the_cpu_is_an_error_not_a_hang() -> None:
    waiting = 0x00020000 << 32 | CODE
    with pytest.raises(HerculesError):
        run_steps(
            [
                HerculesCase(
                    b"\x18\x12", waiting, *[(0,) * 16] * 2, (0,) * 4, tuple(bytes(n) for _, n in WINDOWS)
                )
            ],
            timeout=5,
        )
