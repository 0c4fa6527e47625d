"""bzImage: the compressed kernel in a Linux boot image of x86.

Source: Linux, Documentation/arch/x86/boot.rst, The Real-Mode Kernel Header: `payload_offset` and `payload_length`.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import struct
import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Protocol

import attrs

from .programs import ScanError

HEADER = 0x202  # of "HdrS"; setup_sects is at 0x1F1, boot_flag at 0x1FE, version at 0x206, the payload's place at 0x248
SECTOR, DEFAULT_SECTORS, FIRST_VERSION = 512, 4, 0x208  # the payload is told since boot protocol 2.08
MOST = 1 << 30  # bytes that are unpacked; a kernel has some tens of millions


class Decompressor(Protocol):
    """What the libraries of all compressions have."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most so many bytes."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""


@attrs.frozen
class Compression:
    """How a payload may be compressed; it is known by its first bytes.

    Attributes:
        open: makes a decompressor; None where no library is used for it.
    """

    name: str
    magic: bytes
    open: Callable[[], Decompressor | None]


@attrs.frozen
class Payload:
    """What lay in a boot image.

    Attributes:
        data: unpacked.
        remark: how it was found, in a line.
    """

    data: bytes = attrs.field(repr=False)
    remark: str


def is_boot_image(data: bytes) -> bool:
    """Whether a file has the header of the boot protocol; where it is PE too and has no payload, it is PE."""
    if data[0x1FE:0x200] != b"\x55\xaa" or data[HEADER : HEADER + 4] != b"HdrS":
        return False
    at = int.from_bytes(data[0x3C:0x40], "little")
    is_pe = data[:2] == b"MZ" and data[at : at + 4] == b"PE\0\0"
    return not is_pe or any(data[0x24C:0x250])


def payload(source: str, data: bytes) -> Payload:
    """The payload of a boot image, unpacked.

    Raises:
        ScanError: it has none, lies beyond the end, is broken, or its compression has no library here.
    """
    if len(data) < 0x250:
        raise ScanError(f"{source}: malformed bzImage: its header ends at {len(data):#x}")
    (version,) = struct.unpack_from("<H", data, 0x206)
    if version < FIRST_VERSION:
        told = f"{version >> 8}.{version & 255:02}"
        raise ScanError(f"{source}: bzImage of boot protocol {told}: its payload is told since 2.08")
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or DEFAULT_SECTORS) + 1) * SECTOR + offset
    if not length or start + length > len(data):
        raise ScanError(
            f"{source}: malformed bzImage: its payload is said to be {length} bytes at {start:#x}, "
            f"and the file has {len(data)}"
        )
    packed = data[start : start + length]
    kind = next((one for one in COMPRESSIONS if packed.startswith(one.magic)), None)
    if kind is None:
        able = ", ".join(one.name for one in COMPRESSIONS)
        raise ScanError(
            f"{source}: bzImage: its payload begins with {packed[:4].hex(' ')}: expected one of {able}"
        )
    unpacked = _unpacked(source, kind, packed)
    told = f"({kind.name}, {len(unpacked)} bytes unpacked)"
    return Payload(
        unpacked, f"bzImage: what its payload holds {told} was scanned, and none of the code around it"
    )


def _unpacked(source: str, kind: Compression, packed: bytes) -> bytes:
    opened = kind.open()
    if opened is None:
        raise ScanError(
            f"{source}: bzImage: its payload is compressed by {kind.name}, which cannot be read here"
        )
    try:
        # Behind the stream may stand its size, which the build of the kernel adds.
        found = opened.decompress(packed, MOST)
    except Exception as error:  # each library has an error of its own
        raise ScanError(f"{source}: bzImage: its payload is no {kind.name}: {error}") from None
    if len(found) >= MOST:
        raise ScanError(f"{source}: bzImage: its payload unpacks to more than {MOST >> 20} MiB")
    if not opened.eof:
        raise ScanError(f"{source}: bzImage: its payload ends within its {kind.name} stream")
    return found


def _zstd() -> Decompressor | None:
    """Of the standard library since Python 3.14, else of its backport (the extra `scan`)."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError:
        return None
    made: Decompressor = module.ZstdDecompressor()
    return made


class LegacyLz4:
    """LZ4's legacy frame, which lz4 alone reads block by block: a magic number, then blocks behind their sizes.

    Source: LZ4, Frame Format Description, Legacy frame.
    """

    BLOCK = 8 << 20  # bytes that a block has at most when unpacked

    def __init__(self, unpack: Callable[..., bytes]) -> None:
        self._unpack = unpack
        self.eof = False

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """All blocks; what is left in the end, four bytes or none, is no block but the size of the whole."""
        found: list[bytes] = []
        at = 4
        while at + 4 < len(data) and len(found) * self.BLOCK < max_length:
            (size,) = struct.unpack_from("<I", data, at)
            if at + 4 + size > len(data):
                return b""
            found.append(self._unpack(data[at + 4 : at + 4 + size], uncompressed_size=self.BLOCK))
            at += 4 + size
        self.eof = at + 4 >= len(data)
        return b"".join(found)[:max_length]


def _lz4() -> Decompressor | None:
    """By lz4 (the extra `scan`)."""
    try:
        module: ModuleType = importlib.import_module("lz4.block")
    except ImportError:
        return None
    return LegacyLz4(module.decompress)


COMPRESSIONS = (
    Compression("gzip", b"\x1f\x8b", lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)),
    Compression("bzip2", b"BZh", bz2.BZ2Decompressor),
    Compression("lzma", b"\x5d\0\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
    Compression("xz", b"\xfd7zXZ", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    Compression("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    Compression("lz4", b"\x02\x21\x4c\x18", _lz4),
    Compression("lzo", b"\x89LZO", lambda: None),
)
