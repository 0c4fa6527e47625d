"""`popek scan` of boot images: the payload is found by the boot protocol and unpacked by the tools that pack it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
from test_scan import BASE, CODE, elf

from commands import popek
from popek.machines import codes
from popek.scan.files import read
from popek.scan.programs import ScanError

SIZE = struct.pack("<I", 1234)  # which the build adds behind all but gzip
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def image(packed: bytes, *, sectors: int = 2, version: int = 0x20F, length: int | None = None) -> bytes:
    """A boot image with an EFI stub's first bytes; before its payload lie 32 bytes of the decompressor."""
    setup = bytearray((sectors or 4) * 512 + 512)
    setup[0:2] = b"MZ"
    setup[0x1F1] = sectors
    setup[0x1FE:0x208] = b"\x55\xaa\xeb\x6aHdrS" + struct.pack("<H", version)
    setup[0x248:0x250] = struct.pack("<II", 32, len(packed) if length is None else length)
    return bytes(setup) + bytes(32) + packed + bytes(16)


def zstd(data: bytes) -> bytes:
    """By the library that unpacks it."""
    packed: bytes = import_module(ZSTD).compress(data)
    return packed


def lz4(*blocks: bytes) -> bytes:
    """A legacy frame of LZ4: its magic number, and each block behind its size."""
    library = import_module("lz4.block")
    packed = [library.compress(block, store_size=False) for block in blocks]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(one)) + one for one in packed)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("gzip", gzip.compress),
        ("bzip2", lambda data: bz2.compress(data) + SIZE),
        ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE) + SIZE),
        # As the kernel's build packs it: with the filter for x86 and CRC32.
        ("xz", lambda data: lzma.compress(
            data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2}]
        ) + SIZE),
        ("zstd", lambda data: zstd(data) + SIZE),
        ("lz4", lambda data: lz4(data[:100], data[100:]) + SIZE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sectors", [0, 2])
def test_the_elf_file_in_the_payload_is_scanned(
    tmp_path: Path, name: str, pack: object, sectors: int
) -> None:
    assert callable(pack)
    (tmp_path / "vmlinuz").write_bytes(image(pack(elf()), sectors=sectors))
    program = read(tmp_path / "vmlinuz", None, codes())
    (text,) = program.stretches
    assert (text.name, text.base, text.data, text.offset) == (".text", BASE, CODE, None)
    assert [one for _, one in text.functions] == ["first", "second"]
    assert f"({name}, {len(elf())} bytes unpacked)" in program.remarks[0]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (image(gzip.compress(elf()))[:0x240], "malformed bzImage: its header ends at 0x240"),
        (image(gzip.compress(elf())[:-40]), "its payload ends within its gzip stream"),
        (image(gzip.compress(elf()), length=1 << 20), "its payload is said to be 1048576 bytes at 0x620"),
        (image(b"", length=0), "its payload is said to be 0 bytes"),
        (image(b"\x1f\x8b" + bytes(range(40))), "its payload is no gzip"),
        (image(b"\x02\x21\x4c\x18" + b"\xff" * 40), "its payload ends within its lz4 stream"),
        (image(b"\x89LZO" + bytes(40)), "compressed by lzo, which cannot be read here"),
        (image(b"none of them"), "begins with 6e 6f 6e 65: expected one of gzip"),
        (image(gzip.compress(b"no program")), "expected ELF in its payload, found 6e 6f 20 70"),
        (image(gzip.compress(elf()[:60])), "malformed ELF"),
        (image(gzip.compress(elf()), version=0x207), "boot protocol 2.07: its payload is told since 2.08"),
    ],
)
def test_what_is_wrong_with_an_image_is_told_in_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "vmlinuz").write_bytes(data)
    done = popek("scan", "vmlinuz", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


def test_zstd_and_lz4_without_their_libraries_and_what_unpacks_without_end_are_one_line(
    tmp_path: Path,
) -> None:
    for name, module, magic in (("zstd", ZSTD, "28b52ffd"), ("lz4", "lz4.block", "02214c18")):
        (tmp_path / "vmlinuz").write_bytes(image(bytes.fromhex(magic) + bytes(40)))
        with (
            patch.dict(sys.modules, {module: None}),
            pytest.raises(ScanError, match=f"compressed by {name},"),
        ):
            read(tmp_path / "vmlinuz", None, codes())
    (tmp_path / "vmlinuz").write_bytes(image(gzip.compress(bytes(1 << 16))))
    with (
        patch("popek.scan.bzimage.MOST", 1 << 16),
        pytest.raises(ScanError, match="unpacks to more than"),
    ):
        read(tmp_path / "vmlinuz", None, codes())


def test_a_pe_file_with_the_boot_header_and_no_payload_is_read_as_pe(tmp_path: Path) -> None:
    """As Memtest86+ 6 is: the boot protocol loads it whole."""
    data = bytearray(0x400)
    data[:2], data[0x1FE:0x200], data[0x202:0x206], data[0x206:0x208] = (
        b"MZ",
        b"\x55\xaa",
        b"HdrS",
        b"\x0c\x02",
    )
    data[0x300:0x304] = b"PE\0\0"
    data[0x3C:0x40] = (0x300).to_bytes(4, "little")
    (tmp_path / "image").write_bytes(data)
    done = popek("scan", "image", folder=tmp_path)
    assert done.returncode == 2
    assert "bzImage" not in done.stderr
    assert "PE" in done.stderr
