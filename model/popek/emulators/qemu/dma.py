"""DMA requests on QEMU's `intel-iommu`, by its device `edu`, beside what the rules of the unit say."""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import attrs

from popek.architectures.vtd.dma import Remapped, translate
from popek.architectures.vtd.ledger import rules
from popek.architectures.vtd.unit import RemappingCapabilities, Unit
from popek.emulators.programs import find, not_found, started
from popek.kernel.words import Word

SOURCE_ID: Final = 0x0018  # 00:03.0
ROOT, CONTEXT, TABLES, PAGES = 0x400000, 0x401000, 0x402000, 0x800000
PATTERN: Final = 0x80000
MARK: Final = 0x9E3779B97F4A7C15
LARGE = {2: 21, 3: 30}


class QemuError(RuntimeError):
    """QEMU or nasm is missing, or the harness did not end."""


@attrs.frozen
class DmaCase:
    """One request.

    Attributes:
        cells: quadwords of storage, by address.
        address: of the eight bytes.
        write: the device writes them.
        root: the root table's address.
        about: what was changed in tables that map the address.
    """

    cells: Mapping[int, int]
    address: int
    write: bool
    root: int = ROOT
    about: tuple[str, ...] = ()


@attrs.frozen
class DmaResult:
    """What a request came to.

    Attributes:
        reason: the fault's; 0 for none.
        fault: the recorded address, source-id, and whether it says a read; None without a fault.
        data: what the device read, or what is where it wrote.
    """

    reason: int
    fault: tuple[int, int, bool] | None
    data: int


@attrs.frozen
class DmaCompared:
    """A case beside the rules.

    Attributes:
        expected: what the rules say.
        unlike: what differs, in words; empty where nothing does.
    """

    case: DmaCase
    expected: Remapped
    result: DmaResult
    unlike: str


def capabilities(width: int) -> RemappingCapabilities:
    """What QEMU's unit can do with ``aw-bits`` of 39 or 48."""
    levels = (3,) if width == 39 else (3, 4)
    return RemappingCapabilities(host_width=width, guest_width=width, levels=levels, large=(2, 3))


def judged(case: DmaCase, can: RemappingCapabilities) -> Remapped:
    """What the rules say of a case."""
    unit = Unit.reset(root_table=case.root, translation=1)
    storage = case.cells

    def read(address: Word) -> Word:
        return Word(64, storage.get(int(address), 0))

    return translate(read, unit, Word(16, SOURCE_ID), Word(64, case.address), case.write, can)


# -- cases ------------------------------------------------------------------------------------------


def make_cases(count: int, seed: int, width: int) -> list[DmaCase]:
    """Tables that map a random address, with up to three random changes to what is read on the way."""
    chance, can = random.Random(seed), capabilities(width)
    return [_case(chance, can, number) for number in range(count)]


def _case(chance: random.Random, can: RemappingCapabilities, number: int) -> DmaCase:
    levels = chance.choice(can.levels)
    bits = 12 + 9 * levels
    address = chance.getrandbits(bits - 3) << 3
    leaf = chance.choice([1, 1, 1, *can.large])
    cells: dict[int, int] = {}
    kind = 2 if chance.random() < 0.08 else 0
    if kind == 2:
        address = PAGES + (chance.getrandbits(20) << 3)
    elif leaf == 3:  # a page of 1 GB begins at 0
        address = address >> 30 << 30 | PAGES + (chance.getrandbits(20) << 3)
    cells[ROOT] = CONTEXT | 1
    cells[ROOT + 8] = 0
    place = CONTEXT + 16 * (SOURCE_ID & 0xFF)
    cells[place] = TABLES | kind << 2 | 1
    cells[place + 8] = (levels - 2) | (chance.getrandbits(16) << 8 if chance.random() < 0.3 else 0)
    table, way = TABLES, [ROOT, ROOT + 8, place, place + 8]
    for level in range(levels, leaf - 1, -1):
        at = table + 8 * ((address >> (12 + 9 * (level - 1))) & 0x1FF)
        table += 0x1000
        rights = 3 if chance.random() < 0.9 else chance.choice([1, 2, 0])
        if level == leaf:
            size = 1 << (12 + 9 * (level - 1))
            page = (PAGES + 0x1000 * chance.randrange(0x1000)) & ~(size - 1)
            cells[at] = page | rights | (0x80 if level > 1 else 0)
        else:
            cells[at] = table | rights
        way.append(at)
    about = []
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        at = chance.choice(way)
        bit = chance.choice(
            [chance.randrange(64), chance.randrange(12), chance.randrange(can.host_width, 64)]
        )
        misplaced = leaf > 1 and at == way[-1] and chance.random() < 0.3
        if misplaced:
            bit = chance.randrange(12, LARGE[leaf])
        # What would lead the walk to other storage than ours is left alone.
        if 12 <= bit < can.host_width and not misplaced:
            continue
        if bit == 7 and cells[at] & 0x80 and cells[at] < PAGES:
            continue
        cells[at] ^= 1 << bit
        about.append(f"bit {bit} of {at:#x}")
    if chance.random() < 0.08:
        address |= 1 << chance.randrange(bits, 64)
        about.append("a wide address")
    write = chance.random() < 0.5
    case = DmaCase(cells, address, write, about=tuple(about))
    return _with_data(case, can, number)


def _with_data(case: DmaCase, can: RemappingCapabilities, number: int) -> DmaCase:
    """The eight bytes at each end."""
    mark = (MARK * (number + 1)) & 0xFFFF_FFFF_FFFF_FFFF
    found = judged(case, can)
    cells = {PATTERN: mark, **case.cells}
    place = int(found.address)
    if found.passes.value == 1 and _ours(place):
        cells = {**cells, place: 0 if case.write else mark}
    return attrs.evolve(case, cells={**cells, **case.cells})


def _ours(address: int) -> bool:
    """The address is storage of the guest's that holds no tables."""
    return 0x600000 <= address < 0xF000000


# -- runs -------------------------------------------------------------------------------------------


def run(cases: Sequence[DmaCase], width: int, *, seconds: float = 600) -> list[DmaResult]:
    """Every case, in one run of QEMU.

    Raises:
        QemuError: QEMU or nasm is missing, or the guest did not end.
    """
    for command in ("qemu-system-x86_64", "nasm"):
        if find(command) is None:
            raise QemuError(not_found(command))
    with tempfile.TemporaryDirectory(prefix="popek-qemu-") as name:
        folder = Path(name)
        source = files("popek.emulators.qemu").joinpath("dma.asm").read_text(encoding="utf-8")
        (folder / "dma.asm").write_text(source, encoding="utf-8")
        subprocess.run(
            ["nasm", "-f", "bin", "-o", "code", "dma.asm"], cwd=folder, check=True, capture_output=True
        )
        can = capabilities(width)
        data = b"".join(_packed(case, can) for case in cases)
        image = (folder / "code").read_bytes() + struct.pack("<I", len(cases)) + data
        (folder / "image").write_bytes(image)
        line = [
            "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=off", "-accel", "tcg", "-m", "256",
            "-icount", "shift=10,sleep=off", "-display", "none", "-nodefaults", "-no-reboot",
            "-device", f"intel-iommu,aw-bits={width}", "-device", "edu,addr=3,dma_mask=0xffffffffffffffff",
            "-debugcon", "file:out", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", "image",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log, started(line, folder, log) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise QemuError(f"the guest did not end within {seconds:.0f} s") from None
        out = (folder / "out").read_bytes() if (folder / "out").exists() else b""
        if len(out) != 16 + 28 * len(cases):
            said = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise QemuError(f"the guest told {len(out)} bytes of {16 + 28 * len(cases)}: {''.join(said)}")
        return [_result(out[16 + 28 * number :][:28]) for number in range(len(cases))]


def _packed(case: DmaCase, can: RemappingCapabilities) -> bytes:
    found = judged(case, can)
    place = int(found.address) if found.passes.value == 1 else 0
    probe = place if _ours(place) else PATTERN
    stores = b"".join(struct.pack("<IQ", address, value) for address, value in case.cells.items())
    tail = struct.pack("<QIIQ", case.address, int(case.write), probe, case.root)
    return struct.pack("<I", len(case.cells)) + stores + tail


def _result(told: bytes) -> DmaResult:
    status, low, high, data = struct.unpack("<IQQQ", told)
    if not high >> 63:
        return DmaResult(0, None, data)
    del status
    return DmaResult(high >> 32 & 0xFF, (low & ~0xFFF, high & 0xFFFF, bool(high >> 62 & 1)), data)


# -- comparison -------------------------------------------------------------------------------------


def compare(
    cases: Sequence[DmaCase], width: int, show: Callable[[int, int], None] | None = None
) -> list[DmaCompared]:
    """Each case on the rules and on QEMU."""
    can = capabilities(width)
    found = []
    for number, (case, result) in enumerate(zip(cases, run(cases, width), strict=True), 1):
        expected = judged(case, can)
        unlike = _unlike(case, expected, result)
        found.append(DmaCompared(case, expected, result, unlike))
        if show is not None:
            show(number, len(cases))
    return found


def _unlike(case: DmaCase, expected: Remapped, result: DmaResult) -> str:
    reason = int(expected.reason)
    silent = expected.silent.value == 1
    if reason and silent:
        return "a fault is recorded that the context entry silences" if result.reason else ""
    if reason != result.reason:
        return f"reason {result.reason:#x}, by the rules {reason:#x}"
    if reason:
        recorded = (case.address & ~0xFFF, SOURCE_ID, not case.write)
        return "" if result.fault == recorded else f"recorded {result.fault}, by the rules {recorded}"
    place = int(expected.address)
    if not _ours(place):
        return ""
    wanted = case.cells[PATTERN] if case.write else case.cells.get(place, 0)
    return "" if result.data == wanted else f"{result.data:#x} was moved, by the rules {wanted:#x}"


def summary(done: Sequence[DmaCompared], width: int, seed: int) -> dict[str, Any]:
    """`popek/dma-difftest/1`."""
    left = [one for one in done if one.unlike]
    return {
        "schema": "popek/dma-difftest/1",
        "width": width,
        "seed": seed,
        "cases": len(done),
        "outcomes": dict(sorted(Counter(_outcome(one) for one in done).items())),
        "rules_violated": sorted(
            {rule for one in done for rule, fails in one.expected.checks if fails.value == 1}
        ),
        "unexplained": [
            {
                "unlike": one.unlike,
                "address": hex(one.case.address),
                "write": one.case.write,
                "about": list(one.case.about),
                "cells": {hex(address): hex(value) for address, value in one.case.cells.items()},
            }
            for one in left
        ],
    }


def _outcome(one: DmaCompared) -> str:
    reason = int(one.expected.reason)
    if not reason:
        return "let through"
    name = "/".join(rule.id for rule in rules().values() if rule.reason == reason and rule.kind == "dma")
    return name + (", silent" if one.expected.silent.value == 1 else "")
