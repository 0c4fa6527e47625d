"""A dump says the same behind log prefixes, in mail (quoted, encoded, wrapped), or with other line ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popek.architectures.vtx.dumps import read_dumps

FOLDER = Path(__file__).parent / "dumps"
NAMES = ["03", "05", "10", "11", "16", "21"]


def body(number: str) -> list[str]:
    (path,) = FOLDER.glob(f"{number}-*.txt")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [re.sub(r"^\[[\d.]+\]\[T\d+\] ", "", line) for line in lines]


def fields(text: str) -> dict[str, int]:
    (dump,) = read_dumps(text.encode(), "input")
    return dict(dump.fields)


def expected(number: str) -> dict[str, int]:
    (path,) = FOLDER.glob(f"{number}-*.txt")
    (dump,) = read_dumps(path.read_bytes(), "input")
    return dict(dump.fields)


def wrap(lines: list[str], width: int) -> list[str]:
    """Break lines at the last blank before a column, as mail programs do."""
    wrapped = []
    for line in lines:
        while len(line) > width and (at := line.rfind(" ", 12, width)) > 0 and line[:at].strip():
            wrapped.append(line[:at])
            line = line[at + 1 :]
        wrapped.append(line)
    return wrapped


PREFIXES = {
    "time": "[ 1234.567890] ",
    "time and caller": "[ 1234.567890][ T4321] ",
    "caller": "[ C3] ",
    "syslog": "Nov 21 01:02:03 my-host kernel: ",
    "syslog and time": "Nov  1 01:02:03 host kernel: [ 1234.567890] ",
    "journal": "2026-11-21T01:02:03+0100 host kernel: ",
    "level": "<4>[    1.000000] ",
    "dmesg -T": "[Sat Nov 21 01:02:03 2026] ",
    "module": "kvm_intel: ",
    "time and module": "[ 1234.567890] kvm_intel: ",
    "quote": "> ",
    "double quote": ">> ",
    "spaced quote": "> > ",
    "quoted log": "> [ 1234.567890] kvm_intel: ",
    "Xen time": "(XEN) [2020-11-21 01:02:03] ",
    "Xen uptime": "(XEN) [   12.345678] ",
    "DebugView": "00000012\t1.23456789\t",
}


@pytest.mark.parametrize("number", NAMES)
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
def test_prefixes(number: str, prefix: str) -> None:
    assert fields("\n".join(prefix + line for line in body(number))) == expected(number)


@pytest.mark.parametrize("number", NAMES)
@pytest.mark.parametrize("end", ["\r\n", "\r", "  \n", "\n\n", "\x1b[0m\n"])
def test_line_ends(number: str, end: str) -> None:
    assert fields(end.join(body(number)) + end) == expected(number)


@pytest.mark.parametrize("number", NAMES)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(number: str, encoding: str) -> None:
    (dump,) = read_dumps("\n".join(body(number)).encode(encoding), "input")
    assert dict(dump.fields) == expected(number)


@pytest.mark.parametrize("number", NAMES)
def test_quoted_printable(number: str) -> None:
    lines = [line.replace("=", "=3D") for line in body(number)]
    soft = [
        f"{line[:60]}=\n{line[60:]}" if len(line) > 70 and line[58:60].isalnum() else line for line in lines
    ]
    assert fields("\n".join(soft)) == expected(number)


@settings(deadline=None, max_examples=150)
@given(
    number=st.sampled_from(NAMES),
    width=st.integers(40, 80),
    prefix=st.sampled_from(["", *PREFIXES.values()]),
    quote=st.sampled_from(["", "> ", ">> "]),
)
def test_wrapped_by_a_mailer(number: str, width: int, prefix: str, quote: str) -> None:
    lines = wrap([prefix + line for line in body(number)], max(width, len(prefix) + 30))
    assert fields("\n".join(quote + line for line in lines)) == expected(number)


@settings(deadline=None, max_examples=60)
@given(number=st.sampled_from(NAMES), chatter=st.lists(st.integers(0, 200), max_size=8))
def test_kernel_chatter_between_the_lines(number: str, chatter: list[int]) -> None:
    lines = [f"[ 1.000000] {line}" for line in body(number)]
    for position in chatter:
        lines.insert(position % (len(lines) + 1), "[ 1.000000] usb 1-1: new high-speed USB device number 2")
    (dump,) = read_dumps("\n".join(lines).encode(), "input")
    assert dict(dump.fields) == expected(number)
    assert sum("usb 1-1" in item.text for item in dump.unrecognised) == len(chatter)
