"""EPT on Bochs beside the rules: a guest reads, writes or jumps to a page whose EPT entries are drawn at random.

The guest's own tables map one linear page to a guest-physical address; five pages that nothing else uses hold the EPT
tables on its way and the page itself.  Compared are how the reference ends, the guest-physical address, and the exit
qualification's access, permissions, and whether the access was one to the guest's tables.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import attrs

from popek.architectures.second_stage.ledger import second_stage_rules
from popek.architectures.second_stage.tables import (
    EPT,
    Modes,
    Reference,
    SecondStageAbilities,
    Walked,
    walk,
)
from popek.emulators.guests.long_memory import PML4
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.deviations import Deviation, listed
from popek.kernel.words import FALSE, TRUE, Word

from .harness import MARKER, VmxGuestResult, VmxGuestStep, run_guests
from .long_world import LONG

LINEAR, CODE, EPT_ROOT = 0x3D000, 0x20000, 0x47000
TABLES: Final = (0x51000, 0x52000, 0x53000)  # PDPT, PD, PT
PAGE, DATA = 0x54000, 0x1122_3344_5566_7788
KINDS: Final[Mapping[str, bytes]] = {"read": b"\x48\x8b\x03", "write": b"\x48\x89\x03", "fetch": b"\xff\xe3"}
VIOLATION, MISCONFIGURATION, VMCALL = 48, 49, 18
BIT_12: Final = "bit-12-of-a-large-page"
CAN: Final = SecondStageAbilities(host_width=40, levels=4, execute_only=True)


@attrs.frozen
class EptCase:
    """One reference.

    Attributes:
        kind: ``read``, ``write`` or ``fetch``.
        address: the guest-physical address of the page.
        entries: the EPT entries on the way, from the top, by their addresses.
        flags: accessed and dirty flags are on.
        about: what was changed in entries that permit everything.
    """

    kind: str
    address: int
    entries: Mapping[int, int]
    flags: bool
    about: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.kind,
            "address": hex(self.address),
            "entries": {hex(at): hex(value) for at, value in self.entries.items()},
            "flags": self.flags,
            "about": list(self.about),
        }


@attrs.frozen
class EptCompared:
    """A case beside the rules: the rule that decides, and what differs; empty where nothing does.

    Attributes:
        deviation: what explains the difference, as ``bochs-deviations.toml`` names it; empty where nothing does.
    """

    case: EptCase
    rule: str
    unlike: str
    deviation: str = ""

    @property
    def unexplained(self) -> bool:
        """There is a difference, and no deviation that is known explains it."""
        return bool(self.unlike) and not self.deviation


def make_ept_cases(count: int, seed: int) -> list[EptCase]:
    """Tables that map a random page, with up to three random changes."""
    chance = random.Random(seed)
    return [_case(chance) for _ in range(count)]


def _case(chance: random.Random) -> EptCase:
    top, upper = chance.choice((0, 1)), chance.randrange(1, 512)  # below the 40 bits that this processor has
    address = top << 39 | upper << 30 | chance.getrandbits(18) << 12
    tables = (EPT_ROOT, *TABLES) if top else (EPT_ROOT, 0x48000, *TABLES[1:])
    mapping = chance.choice((1, 1, 1, 2, 3))  # the level that maps the page: of 4 KB, 2 MB, 1 GB
    size = 1 << 12 + 9 * (mapping - 1)
    if mapping > 1:  # the storage that it maps begins at 0
        address = address & ~(size - 1) | PAGE
    ways = []
    for level, table in zip(range(4, mapping - 1, -1), tables, strict=False):
        at = table + 8 * (address >> 12 + 9 * (level - 1) & 0x1FF)
        below = tables[5 - level] | 7 if level > mapping else 0xB7 if mapping > 1 else PAGE | 0x37
        ways.append((at, below))
    entries = dict(ways)
    about = []
    changeable = [at for at, _ in ways[0 if top else 1 :]]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        at = chance.choice(changeable)
        if chance.random() < 0.6:
            entries[at] = entries[at] & ~7 | chance.choice((0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7))
            about.append(f"permissions of {at:#x}")
            continue
        bit = chance.choice((chance.randrange(3, 12), chance.randrange(40, 64), 3, 4, 5))
        if mapping > 1 and at == changeable[-1] and (bit == 7 or chance.random() < 0.3):
            bit = chance.randrange(12, 12 + 9 * (mapping - 1))  # a table at 0 would be no storage of ours
        if bit == 7 and at != changeable[-1]:  # another page would be mapped: no longer storage of ours
            two = mapping == 1 and at == changeable[-2]
            entries[at] = PAGE & ~0x1F_FFFF | 0xB7 if two else entries[at] | 1 << 7
        else:
            entries[at] ^= 1 << bit
        about.append(f"bit {bit} of {at:#x}")
    case = EptCase(chance.choice(tuple(KINDS)), address, entries, chance.random() < 0.5, tuple(about))
    found = judged(case)
    # Where a large page is mapped there is no code that leaves the guest.
    strays = case.kind == "fetch" and found.passes.value == 1 and int(found.address) != PAGE
    return attrs.evolve(case, kind="read") if strays else case


def judged(case: EptCase, without: frozenset[str] = frozenset()) -> Walked:
    """What the rules say of the reference."""
    reference = Reference(
        write=TRUE if case.kind == "write" else FALSE, fetch=TRUE if case.kind == "fetch" else FALSE
    )
    return walk(
        lambda at: Word(64, case.entries.get(int(at), 0)), Word(64, EPT_ROOT), Word(64, case.address), reference,
        EPT, Modes(flags=TRUE if case.flags else FALSE), CAN, without,
    )  # fmt: skip


def _step(case: EptCase) -> VmxGuestStep:
    base = LONG.baseline(DEFAULT_MODEL)
    fields = {
        0x4002: base[0x4002] | 1 << 31, 0x401E: 1 << 1, 0x681E: CODE, 0x201A: EPT_ROOT | 3 << 3 | 6 | case.flags << 6,
    }  # fmt: skip
    guest = PML4 + 0x3000 + 8 * (LINEAR >> 12)
    stored = {**case.entries, guest: case.address | 0x63, PAGE: DATA}
    if case.kind == "fetch":
        stored[PAGE] = int.from_bytes(MARKER.ljust(8, b"\x90"), "little")
    memory = [(at, value.to_bytes(8, "little")) for at, value in stored.items()]
    memory.append((CODE, KINDS[case.kind] + MARKER))
    watch = ((PAGE, 8), *((at, 8) for at in case.entries))
    return VmxGuestStep(fields, {"ebx": LINEAR, "eax": ~DATA & (1 << 64) - 1}, tuple(memory), watch)


def compare_ept(cases: Sequence[EptCase]) -> list[EptCompared]:
    """Each case on the rules and on Bochs.

    Raises:
        BochsError: Bochs or nasm is missing.
    """
    found = []
    for case, result in zip(cases, run_guests([_step(case) for case in cases], world=LONG), strict=True):
        walked = judged(case)
        rule = walked.first()
        unlike = _unlike(case, walked, rule, result)
        found.append(EptCompared(case, rule, unlike, _explained(case, rule, result) if unlike else ""))
    return found


@cache
def deviations() -> Mapping[str, Deviation]:
    """What Bochs does otherwise, by name."""
    return listed("popek_specs.second_stage", "bochs-deviations.toml")


def _explained(case: EptCase, rule: str, result: VmxGuestResult) -> str:
    """The deviation that explains a difference: Bochs does what the manual says without it."""
    *_, last = case.entries.values()
    if rule != "EPT-LARGE" or last & 0x1F_F000 != 1 << 12:
        return ""
    walked = judged(case, frozenset({rule}))
    return "" if _unlike(case, walked, walked.first(), result) else BIT_12


def _unlike(case: EptCase, walked: Walked, rule: str, result: VmxGuestResult) -> str:
    if result.entry.kind != "enters":
        return f"the guest was not entered: {result.entry.kind}"
    outcome = second_stage_rules()[rule].outcome if rule else ""
    wanted = {"": VMCALL, "violation": VIOLATION, "misconfiguration": MISCONFIGURATION}[outcome]
    reason = result.entry.basic_reason
    if reason != wanted:
        return f"exit reason {reason}, by the rules {wanted} ({rule or 'let through'})"
    if wanted == VMCALL:
        return _moved(case, walked, result)
    if result.fields[0x2400] & ~0xFFF != case.address:
        return f"guest-physical address {result.fields[0x2400]:#x}, by the rules {case.address:#x}"
    if wanted == VIOLATION:
        access = {"read": 1, "write": 2, "fetch": 4}[case.kind]
        qualification = access | (int(walked.rights) & 7) << 3 | 1 << 7 | 1 << 8
        seen = result.fields[0x6400] & 0x1BF
        if seen != qualification:
            return f"qualification {seen:#x}, by the rules {qualification:#x}"
    return ""


def _moved(case: EptCase, walked: Walked, result: VmxGuestResult) -> str:
    """What a reference that is let through did: the data, and the flags in the entries."""
    if int(walked.address) == PAGE:
        moved = {
            "read": result.registers["eax"] == DATA,
            "write": int.from_bytes(result.memory[0], "little") == ~DATA & (1 << 64) - 1,
            "fetch": result.fields[0x681E] == LINEAR,
        }
        if not moved[case.kind]:
            return f"the {case.kind} went elsewhere"
    wanted = dict(case.entries)
    wanted |= {int(at): int(value) for at, value, here in walked.flagged if int(here)}
    for at, data in zip(case.entries, result.memory[1:], strict=True):
        value = int.from_bytes(data, "little")
        if value != wanted[at] and at not in (EPT_ROOT, 0x48000):
            return f"the entry at {at:#x} is {value:#x}, by the rules {wanted[at]:#x}"
    return ""


def ept_summary(done: Sequence[EptCompared], seed: int) -> dict[str, Any]:
    """`popek/ept-difftest/1`."""
    return {
        "schema": "popek/ept-difftest/1",
        "seed": seed,
        "cases": len(done),
        "outcomes": dict(sorted(Counter(one.rule or "let through" for one in done).items())),
        "deviations": dict(sorted(Counter(one.deviation for one in done if one.deviation).items())),
        "unexplained": [
            {"unlike": one.unlike, "case": one.case.to_json()} for one in done if one.unexplained
        ],
    }
