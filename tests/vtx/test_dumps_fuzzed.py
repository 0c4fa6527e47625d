"""Whatever the input is, the answer is a dump or one clear line with the place of what is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps, read_line
from popek.architectures.vtx.dumps.json_input import read_json
from popek.architectures.vtx.fields import FIELDS
from popek.cli.errors import UserError
from popek.cli.vmcs import app

FOLDER = Path(__file__).parent / "dumps"
DUMPS = [path.read_bytes() for path in sorted(FOLDER.glob("*.txt"))]
fuzzing = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def clear(error: DumpError, lines: int) -> DumpError:
    assert "\n" not in error.message
    assert 0 < len(error.message) < 400
    assert 0 <= error.line <= lines
    return error


def outcome(data: bytes) -> list[Dump] | DumpError:
    """Read an input and check what always holds."""
    lines = data.count(b"\n") + data.count(b"\r") + 1
    try:
        dumps = read_dumps(data, "input")
    except DumpError as error:
        return clear(error, lines)
    assert dumps
    for dump in dumps:
        for field, value in dump.fields.items():
            assert 0 <= value <= FIELDS[field].mask
            if dump.format != "JSON":
                assert 1 <= dump.lines[field] <= lines
    return dumps


@fuzzing
@given(st.binary(max_size=2000))
@example(b"\xff\xfe")
@example(b"\xff\xfe\x00")
@example(b"{" * 100_000)
@example(b"[" * 100_000)
@example(b'{"fields": {"VPID": 1e999}}')
@example(b'{"fields": {"VPID": ' + b"9" * 5000 + b"}}")
@example(b"\xef\xbb\xbf")
@example("{}\ud800".encode("utf-16", "surrogatepass"))
def test_any_bytes(data: bytes) -> None:
    outcome(data)


WORDS = st.sampled_from(
    [
        "*** Guest State ***",
        "*** Host State ***",
        "CR0: actual=0x0000000080000031,",
        "CR3 = 0x",
        "CR3 = 0x0000000000000000",
        "CS:   sel=0x0008,",
        "attr=0x0a09b",
        "CS: 0010 0a09b ffffffff 0000000000000000",
        "GDTR:",
        "Sysenter RSP=",
        "CS:RIP=0010:",
        "SVI|RVI = ",
        "EFER= 0x0000000000000d01 (autoload)",
        "MSR guest autoload:",
        "0: msr=0xc0000080 value=0x0",
        "GUEST_CR0 = 0x1",
        "0x2001: 5",
        "haxm_warning: 4000 X: zz",
        "haxm_panic: x",
        "FATAL: VM-Entry failure, reason 33",
        "qualification 0",
        "EIP=0000fff0 EFL=00000002 [-------]",
        "CS =f000 ffff0000 0000ffff 00009b00",
        "> ",
        "(XEN) ",
        "[ 1.000000][ T1] ",
        "[ 1.000000][ C2] ",
        "=3D0",
        "\n",
        "\n",
        " ",
        "=",
        "0x",
        "ffffffffffffffffffffffff",
    ]
)


@fuzzing
@given(st.lists(WORDS | st.text(max_size=10), max_size=40))
def test_any_mixture_of_what_dumps_are_made_of(words: list[str]) -> None:
    outcome("".join(words).encode("utf-8", "surrogatepass"))


@fuzzing
@given(st.sampled_from(DUMPS), st.floats(0, 1))
def test_cut_anywhere(dump: bytes, at: float) -> None:
    """What is before the cut is read; a value that is cut is not taken for a shorter one."""
    cut = dump[: int(len(dump) * at)]
    whole = outcome(dump)
    result = outcome(cut)
    if isinstance(whole, DumpError) or isinstance(result, DumpError):
        return
    known = whole[0].fields
    for field, value in result[0].fields.items():
        is_fixed_width = whole[0].format in {"Linux KVM", "Xen"}
        assert not is_fixed_width or known[field] == value


@fuzzing
@given(st.sampled_from(DUMPS), st.integers(0, 10_000), st.binary(min_size=1, max_size=6))
def test_overwritten_anywhere(dump: bytes, at: int, junk: bytes) -> None:
    position = at % len(dump)
    outcome(dump[:position] + junk + dump[position + len(junk) :])


@fuzzing
@given(st.sampled_from(DUMPS), st.data())
def test_lines_dropped_repeated_and_swapped(dump: bytes, data: st.DataObject) -> None:
    lines = dump.splitlines(keepends=True)
    order = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines)))
    outcome(b"".join(lines[index] for index in order))


@pytest.mark.parametrize(
    ("old", "new"),
    [("80000031,", "8000003g,"), ("DR7 = 0x", "DR7 = 0y"), ("DR7 = 0x", "DR7 = qx"), ("fffff7", "ffff7")],
)
def test_a_wrong_digit_is_named_on_its_line(old: str, new: str) -> None:
    text = DUMPS[0].decode()
    line = next(number for number, row in enumerate(text.splitlines(), 1) if old in row)
    (whole,), result = read_dumps(text.encode(), "input"), outcome(text.replace(old, new, 1).encode())
    assert not isinstance(result, DumpError)
    assert result[0].fields.items() < whole.fields.items()
    assert len(whole.fields) - len(result[0].fields) == 1
    # What is no number at all is prose.
    said = result[0].unrecognised if new == "DR7 = qx" else result[0].remarks
    assert any(item.line == line and new.strip(",")[-2:] in item.text for item in said)


@pytest.mark.parametrize(
    "piece",
    [
        b"hello world, nothing here\n",
        b"a" * 1000 + b"\n",
        b" " * 999 + b"\n",
        b"a:" * 500 + b"\n",
        b"x=" * 500 + b"\n",
    ],
)
def test_megabytes_without_a_dump(piece: bytes) -> None:
    assert isinstance(outcome(piece * (2_000_000 // len(piece))), DumpError)


def test_a_dump_among_megabytes() -> None:
    noise = b"[ 1.000000] usb 1-1: new high-speed USB device number 2 using xhci_hcd\n" * 10_000
    result = outcome(noise + DUMPS[0] + noise)
    assert not isinstance(result, DumpError)
    assert len(result[0].fields) == len(outcome(DUMPS[0])[0].fields)  # type: ignore[index]


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_one_very_long_line(size: int) -> None:
    assert isinstance(outcome(b"0123456789abcdef" * (size >> 4)), DumpError)
    assert isinstance(outcome(b"CR3 = 0x" + b"f" * size), DumpError) or True


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELD_VALUES = st.integers(0, (1 << 64) - 1).map(hex) | st.text(max_size=6) | JSON_VALUES
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=5) | JSON_VALUES,
        "fields": st.dictionaries(
            st.sampled_from(list(FIELDS)) | st.text(max_size=6), FIELD_VALUES, max_size=6
        )
        | JSON_VALUES,
        "capabilities": JSON_VALUES,
        "default": FIELD_VALUES,
        "memory": JSON_VALUES,
    },
)


@fuzzing
@given(OBJECTS | JSON_VALUES)
def test_any_json(value: Any) -> None:
    outcome(json.dumps(value).encode())


def both(line: str) -> tuple[Dump | str, Dump | str]:
    """Read a line of JSON Lines by the quick and by the full reader."""
    quick: Dump | str
    full: Dump | str
    try:
        quick = read_line(line, 1, "x")
    except DumpError as error:
        quick = error.message
    try:
        (full,) = read_json(line, "x:1")
    except DumpError as error:
        full = error.message
    return quick, full


GOOD = st.dictionaries(
    st.sampled_from(list(FIELDS)),
    st.sampled_from([0, 1, 0x16, 0xFFFF, 0x10000, 1 << 40]).map(hex),
    max_size=12,
)


@fuzzing
@given(
    GOOD | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    st.sampled_from([(", ", ": "), (",", ":")]),
)
@example({"VPID": "0x1", '", "fields': "0x2"}, (", ", ": "))
def test_the_quick_reader_of_json_lines_is_the_full_one(
    fields: dict[str, str], separators: tuple[str, str]
) -> None:
    for more in (
        {},
        {"name": "n", "default": "0x0"},
        {"memory": [["0x0", 4, "0x1"]]},
        {"extra": '"fields": {'},
    ):
        quick, full = both(json.dumps({"fields": fields} | more, separators=separators))
        assert quick == full


@pytest.mark.parametrize(
    "line",
    [
        '{"fields": {"VPID": "0x1", "VPID": "0x2"}}',
        '{"fields": {"VPID": "0x1", "VPID": "0x1"}}',
        '{"fields": {"VPID": "0x1"}, "fields": {"VPID": "0x2"}}',
        '{"capabilities": {"fields": {"VPID": "0x1"}}, "fields": {}}',
        '{"capabilities": {"fields": {"VPID": "0x1"}}}',
        '{"fields": {"VPID": "0x1"} }',
        '{"fields": {"VPID": "0x1",}}',
        '{"fields": {,"VPID": "0x1"}}',
        '{"fields": {"VPID": "0x1"',
        '{"fields": {"VPID": "1"}}',
        '{"fields": {"0x0000": "0x1", "0x2001": "0x1", "0x2000": "0x1"}}',
        '{"fields" : { "VPID" : "0X1" } }',
    ],
)
def test_the_quick_reader_on_crooked_lines(line: str) -> None:
    quick, full = both(line)
    if isinstance(full, str):
        assert isinstance(quick, str)
    else:
        assert quick == full


@fuzzing
@given(
    data=st.sampled_from(DUMPS) | st.binary(max_size=300), at=st.integers(0, 4000), junk=st.binary(max_size=4)
)
@example(data=b'{"name": "\\ud800\\u001b[2J", "fields": {" VPID\\n": 1}}', at=0, junk=b"")
@example(data=b'{"fields": {}, "capabilities": {"\\ud800\\n": 1}}', at=0, junk=b"")
@example(data=b"GUEST_CR0 = 0x1\n\x1b]0;title\x07 and more\n", at=0, junk=b"")
@pytest.mark.parametrize("options", [[], ["--json"], ["--jsonl"]], ids=str)
def test_the_command_answers_or_names_the_input(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    data: bytes,
    at: int,
    junk: bytes,
) -> None:
    position = at % (len(data) + 1)
    data = data[:position] + junk + data[position:]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    message = ""
    capsys.readouterr()
    try:
        code = app(["check", "-", *options], result_action="return_value", exit_on_error=False)
    except UserError as error:
        message = str(error)
    out = capsys.readouterr().out
    if message:
        assert message.startswith("standard input")
        assert "\n" not in message
        assert out == ""
        return
    out.encode()
    assert "\x1b" not in out
    assert code in {0, 1, 2, 3}
    assert (code == 2) == ('"error":' in out)
    if options:
        for line in out.splitlines() if options == ["--jsonl"] else [out]:
            json.loads(line)
