"""The DMAR table: layouts by hand from the specification's figures, forms in which people paste it, what is wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from commands import popek
from popek.architectures.vtd.dmar import DmarError, parse
from popek.architectures.vtd.dmar_findings import findings
from popek.architectures.vtd.dmar_text import table_bytes
from popek.schemas import schemas


def scope(kind: int, bus: int, *path: int, number: int = 0) -> bytes:
    return bytes([kind, 6 + len(path), 0, 0, number, bus, *path])


def structure(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", kind, 4 + len(body)) + body


def drhd(base: int, *scopes: bytes, flags: int = 0) -> bytes:
    return structure(0, struct.pack("<BBHQ", flags, 0, 0, base) + b"".join(scopes))


def rmrr(base: int, limit: int, *scopes: bytes) -> bytes:
    return structure(1, struct.pack("<HHQQ", 0, 0, base, limit) + b"".join(scopes))


def table(*structures: bytes, flags: int = 5, width: int = 39) -> bytes:
    body = b"".join(structures)
    head = b"DMAR" + struct.pack("<IBB6s8sI4sI", 48 + len(body), 1, 0, b"POPEK ", b"TABLE   ", 1, b"TEST", 1)
    whole = bytearray(head + bytes([width - 1, flags]) + bytes(10) + body)
    whole[9] = -sum(whole) & 0xFF
    return bytes(whole)


GRAPHICS, USB = scope(1, 0, 2, 0), scope(1, 0, 0x14, 0)
# After the tables of desktop chipsets of about 2017: two units, and two regions.
DESKTOP = table(
    drhd(0xFED90000, GRAPHICS),
    drhd(0xFED91000, scope(3, 0xF0, 0x1F, 0, number=2), scope(4, 0, 0x1F, 0), flags=1),
    rmrr(0x7A3D0000, 0x7A3EFFFF, USB),
    rmrr(0x7B800000, 0x7FFFFFFF, GRAPHICS),
)
ALL = table(
    drhd(0xFBFFC000, flags=1),
    rmrr(0x1000, 0x1FFF, scope(2, 0x80, 0x1C, 7, 0, 0)),
    structure(2, bytes(4) + scope(2, 0, 3, 0)),
    structure(3, bytes(4) + struct.pack("<QI", 0xFBFFC000, 1)),
    structure(4, bytes([0, 0, 0, 9]) + b"\\_SB.UA00\0"),
    structure(5, bytes([1, 0, 0, 0]) + scope(1, 0x6A, 1, 0)),
    structure(6, bytes(4) + scope(5, 0, 0x1E, 0, number=9)),
    flags=0, width=46,
)  # fmt: skip


def whats(data: bytes, kind: str) -> list[str]:
    return [one.what for one in findings(parse(data)) if one.kind == kind]


def test_a_table_is_read() -> None:
    found = parse(DESKTOP)
    assert (found.host_width, found.flags, found.checksum, found.oem) == (39, 5, True, "POPEK TABLE")
    assert [one.title for one in found.structures] == ["DRHD", "DRHD", "RMRR", "RMRR"]
    assert [one.base for one in found.structures] == [0xFED90000, 0xFED91000, 0x7A3D0000, 0x7B800000]
    assert found.structures[1].scopes[0].words == "I/O APIC 2 at f0:1f.0"
    assert found.structures[3].limit == 0x7FFFFFFF
    assert not whats(DESKTOP, "wrong")


def test_what_the_monitor_must_own() -> None:
    own = [one for one in findings(parse(DESKTOP)) if one.kind == "own"]
    regions = [one.region for one in own if one.region]
    assert regions == [
        (0xFED90000, 0xFED90FFF), (0xFED91000, 0xFED91FFF), (0x7A3D0000, 0x7A3EFFFF), (0x7B800000, 0x7FFFFFFF),
    ]  # fmt: skip
    assert sum("admit its source-id" in one.what for one in own) == 2
    assert any("00:14.0" in what and "0x7a3d0000" in what for what in whats(DESKTOP, "care"))


def test_every_kind_of_structure() -> None:
    found = parse(ALL)
    assert [one.title for one in found.structures] == ["DRHD", "RMRR", "ATSR", "RHSA", "ANDD", "SATC", "SIDP"]
    assert found.structures[1].scopes[0].where == "80:1c.7/00.0"
    assert found.structures[4].name == "\\_SB.UA00"
    assert not whats(ALL, "wrong")
    care = " ".join(whats(ALL, "care"))
    for word in (
        "no interrupt remapping",
        "address translation services",
        "6a:01.0",
        "proximity domain 1",
        "UA00",
    ):
        assert word in care


OK = drhd(0xFED91000, flags=1)


# One rule broken each.
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (table(drhd(0xFED91800, flags=1)), "no page begins"), (table(drhd(0, flags=1)), "no page begins"),
        (table(drhd(1 << 40, flags=1)), "beyond 39 bits"), (table(OK, drhd(0xFED90000, USB)), "not the last"),
        (table(drhd(0xFED90000), OK), "has no device"), (table(), "no remapping unit"),
        (table(drhd(0xFED90000, USB), drhd(0xFED92000, USB), OK), "scope of two units"),
        (table(OK, rmrr(0x1000, 0x2000, USB)), "whole number of pages"),
        (table(OK, rmrr(0x1000, 0x1FFF)), "no device uses"),
        (table(OK, rmrr(0x2000, 0xFFF, USB)), "whole number of pages"),
        (table(OK, rmrr(0xFED91000, 0xFED91FFF, USB)), "covers a unit's registers"),
        (table(OK, rmrr(1 << 39, (1 << 39) + 0xFFF, USB)), "beyond 39 bits"),
        (table(rmrr(0x1000, 0x1FFF, USB), OK), "order of their types"),
        (table(OK, structure(3, bytes(4) + struct.pack("<QI", 0xFED92000, 0))), "no DRHD has"),
        (table(OK, structure(4, bytes([0, 0, 0, 1]) + b"X\0")), "no scope has the ACPI device"),
        (table(OK, structure(5, bytes(4) + scope(5, 0, 0, 0, number=3))), "no ANDD names"),
        (table(OK, structure(9, bytes(4))), "unknown type, 9"),
        (table(drhd(0xFED90000, scope(7, 0, 0, 0)), OK), "type of scope"),
        (table(OK, b"\x01\0\x04\0"), "it has at least 24"), (table(OK, b"\0\0\0\0"), "at least 16"),
        (table(OK, b"\x02\0\x40\0"), "ends behind the table"), (table(OK, b"\x02\0"), "behind the last structure"),
        (table(drhd(0xFED90000, bytes([1, 0, 0, 0, 0, 0, 2, 0])), OK), "which cannot be"),
        (DESKTOP[:-1], "cut off"), (DESKTOP[:60] + b"\x01" + DESKTOP[61:], "sum is not 0"),
    ],
)  # fmt: skip
def test_what_is_wrong(data: bytes, word: str) -> None:
    assert any(word in what for what in whats(data, "wrong"))


# -- as text ----------------------------------------------------------------------------------------


def acpidump(data: bytes) -> str:
    lines = ["DMAR @ 0x0000000000000000"]
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"    {at:04X}: {' '.join(f'{byte:02X}' for byte in part):<47}  {text}")
    return "\n".join([*lines, ""])


def hexdump(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        halves = ["".join(f"{byte:02x} " for byte in half) for half in (part[:8], part[8:])]
        lines.append(f"{at:08x}  {halves[0]} {halves[1]} |{'.' * len(part)}|")
    return "\n".join([*lines, f"{len(data):08x}", ""])


def xxd(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        pairs = [data[at : at + 16][i : i + 2].hex() for i in range(0, len(data[at : at + 16]), 2)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[at : at + 16])
        lines.append(f"{at:08x}: {' '.join(pairs):<39}  {text}")
    return "\n".join([*lines, ""])


HEADER = (
    (4, 4, "Table Length"), (8, 1, "Revision"), (9, 1, "Checksum"), (24, 4, "Oem Revision"),
    (32, 4, "Asl Compiler Revision"), (36, 1, "Host Address Width"), (37, 1, "Flags"),
)  # fmt: skip
STRUCTURES = {
    0: ((4, 1, "Flags"), (5, 1, "Reserved"), (6, 2, "PCI Segment Number"), (8, 8, "Register Base Address")),
    1: (
        (4, 2, "Reserved"),
        (6, 2, "PCI Segment Number"),
        (8, 8, "Base Address"),
        (16, 8, "End Address (limit)"),
    ),
}
SCOPE = ((1, 1, "Entry Length"), (2, 2, "Reserved"), (4, 1, "Enumeration ID"), (5, 1, "PCI Bus Number"))


def iasl(data: bytes, new: bool = False) -> str:
    """The form of iasl's disassembly, field by field."""
    lines = [
        "/*",
        " * Disassembly of DMAR",
        " * Format: [HexOffset DecimalOffset ByteLength]  FieldName : Value",
        " */",
    ]

    def field(at: int, length: int, name: str, value: str | None = None) -> None:
        number = int.from_bytes(data[at : at + length], "little")
        shown = f"{number:0{2 * length}X}" if value is None else value
        size = f"{length:03X}h" if new else f"{length:3d}"
        lines.append(f"[{at:03X}h {at:04d} {size}]{name:>29} : {shown}")

    def text(at: int, length: int, name: str) -> None:
        field(at, length, name, f'"{data[at : at + length].decode()}"')

    field(0, 4, "Signature", '"DMAR"    [DMA Remapping table]')
    text(10, 6, "Oem ID")
    text(16, 8, "Oem Table ID")
    text(28, 4, "Asl Compiler ID")
    for one in HEADER:
        field(*one)
    field(38, 10, "Reserved", " ".join(["00"] * 10))
    at = 48
    while at < len(data):
        kind, size = struct.unpack("<HH", data[at : at + 4])
        field(at, 2, "Subtable Type", f"{kind:04X} [Hardware Unit Definition]")
        field(at + 2, 2, "Length")
        for offset, length, name in STRUCTURES[kind]:
            field(at + offset, length, name)
        first, at = at + {0: 16, 1: 24}[kind], at + size
        while first < at:
            field(first, 1, "Device Scope Type", f"{data[first]:02X} [PCI Endpoint Device]")
            for offset, length, name in SCOPE:
                field(first + offset, length, name)
            for place in range(first + 6, first + data[first + 1], 2):
                field(place, 2, "PCI Path", f"{data[place]:02X},{data[place + 1]:02X}")
            first += data[first + 1]
    return "\n".join([*lines, ""])


FORMS: dict[str, Callable[[bytes], str]] = {
    "acpidump": acpidump, "hexdump": hexdump, "xxd": xxd, "iasl": iasl, "iasl, new": lambda data: iasl(data, True),
}  # fmt: skip
MESSES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "quoted": lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
    "quoted twice": lambda text: "".join(f">> {line}\n" for line in text.splitlines()),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "behind words": lambda text: "Hello,\n\nthis is my table:\n" + text + "\nThanks\n",
    "indented": lambda text: "".join(f"\t    {line}\n" for line in text.splitlines()),
    "in the log": lambda text: "".join(f"[   12.345678] {line}\n" for line in text.splitlines()),
    "HTML": lambda text: "<pre>" + text.replace("&", "&amp;").replace("<", "&lt;") + "</pre>",
    "no-break spaces": lambda text: text.replace("  ", " \u00a0"),
}


@pytest.mark.parametrize("mess", MESSES)
@pytest.mark.parametrize("form", FORMS)
def test_pastes(form: str, mess: str) -> None:
    text = MESSES[mess](FORMS[form](DESKTOP))
    assert table_bytes(text.encode()) == DESKTOP


def test_other_tables_before_it_are_passed_over() -> None:
    other = b"APIC" + DESKTOP[4:60]
    text = acpidump(other).replace("DMAR @", "APIC @") + "\n" + acpidump(DESKTOP)
    assert table_bytes(text.encode()) == DESKTOP


def test_a_line_that_is_missing_is_said() -> None:
    lines = acpidump(DESKTOP).splitlines()
    with pytest.raises(DmarError, match="offset 0x20"):
        table_bytes("\n".join([*lines[:3], *lines[4:]]).encode())


def test_a_field_that_makes_no_sense_is_said() -> None:
    text = iasl(DESKTOP).replace("Host Address Width : 26", "Host Address Width : thirty")
    with pytest.raises(DmarError, match="Host Address Width: expected 1 bytes, found 'thirty'"):
        table_bytes(text.encode())


# -- the command ------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "DMAR"
    file.write_bytes(DESKTOP)
    done = popek("devices", "dmar", str(file), "--json")
    assert done.returncode == 0
    jsonschema.Draft202012Validator(schemas()["popek/dmar/1"]).validate(json.loads(done.stdout))
    file.write_bytes(table(drhd(0xFED91800, flags=1)))
    done = popek("devices", "dmar", str(file))
    assert done.returncode == 1
    assert "the table is wrong" in done.stdout


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"hello", b"DMAR", "Größe".encode(), b"APIC" + bytes(60)])
def test_bad_input_is_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "given"
    file.write_bytes(data)
    done = popek("devices", "dmar", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there() -> None:
    done = popek("devices", "dmar", "/nowhere/DMAR")
    assert (done.returncode, "/nowhere/DMAR" in done.stderr) == (2, True)


# What the firmware of QEMU 7.2 left in storage with `-machine q35 -device intel-iommu,intremap=on`, by `pmemsave`.
QEMU = bytes.fromhex(
    "444d4152680000000142424f43485320425850432020202001000000425850430100000026010000000000000000000000003800"
    "000000000000d9fe000000000308000000ff000001080000000000000108000000001f000108000000001f020108000000001f03"
)


def test_qemus_table() -> None:
    found = parse(QEMU)
    assert (found.checksum, found.host_width, found.flags, found.oem) == (True, 39, 1, "BOCHS BXPC")
    (unit,) = found.structures
    assert unit.base == 0xFED90000
    assert [scope.words for scope in unit.scopes][:2] == ["I/O APIC 0 at ff:00.0", "PCI endpoint at 00:00.0"]
    assert not whats(QEMU, "wrong")
    assert table_bytes(acpidump(QEMU).encode()) == QEMU
