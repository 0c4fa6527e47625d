"""How many VMCSs a second are judged: given whole or in part, as they are or as lines of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.architectures.vtx.baselines import MODES, baseline, has_mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps.lines import LineJudge
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.verdict import verdict_of_many
from popek.architectures.vtx.vmcs import Vmcs

VMCSS = 500  # VMCSs that are judged again and again
PROCESSOR = "bochs-corei7-skylake-x"  # all its values are sure, as those of a file of MSRs are
FIELD_SETS: Final = (1, 8, 64)

LINES: Final = {
    "vmcs lines complete": "lines of JSON answered, every field given",
    "vmcs lines few missing": "lines of JSON answered, other 1 to 5 fields missing in each",
    "vmcs lines any fields": "lines of JSON answered, any fields given in each",
}
"""What `popek vmcs check --jsonl` does with a line, from its bytes to the text of the answer."""

Judging = tuple[str, str, Callable[[], int], str]
"""A name, what is judged, a turn, which says how often, and the name of what it is beside."""


def judged() -> Iterator[Judging]:
    """VMCSs, and lines of them, which give every field, or others."""
    for name, unit, given in (
        ("vmcs complete", "VMCSs judged, every field given", 1.0),
        ("vmcs partial", "VMCSs judged, half of the fields given", 0.5),
    ):
        yield name, unit, _vmcss(given), ""
    first = next(iter(LINES))
    for name, unit in LINES.items():
        yield name, unit, _answered(_lines(name)), "" if name == first else first
    for count in FIELD_SETS:
        unit = f"lines of JSON answered, {count} sets of fields given"
        yield f"vmcs lines {count} sets", unit, _answered(_lines_of_sets(count)), first


def _vmcss(given: float) -> Callable[[], int]:
    """Judge VMCSs of every operating mode, each with a bit of a field turned over; all give the same fields."""
    capabilities = load_capabilities(PROCESSOR)
    chance = random.Random(1)
    shown = frozenset(field for field in FIELDS if chance.random() < given)
    vmcss = [_varied(mode, capabilities, shown, chance) for mode in _modes(capabilities)]
    return lambda: sum(1 for _ in verdict_of_many(vmcss, capabilities))


def _lines(name: str) -> list[bytes]:
    """Lines of VMCSs that give the same fields, or each others."""
    capabilities = load_capabilities(PROCESSOR)
    chance = random.Random(1)
    lines = []
    for mode in _modes(capabilities):
        fields = dict(_varied(mode, capabilities, frozenset(FIELDS), chance).fields)
        if name == "vmcs lines few missing":
            for missing in chance.sample(sorted(fields), chance.randint(1, 5)):
                del fields[missing]
        elif name == "vmcs lines any fields":
            share = chance.random()
            fields = {field: value for field, value in fields.items() if chance.random() < share}
        lines.append(_line(fields))
    return lines


def _lines_of_sets(count: int) -> list[bytes]:
    """Lines of VMCSs of which each gives one of so many sets of fields."""
    capabilities = load_capabilities(PROCESSOR)
    chance = random.Random(1)
    sets = [frozenset(field for field in FIELDS if chance.random() < 0.9) for _ in range(count)]
    return [
        _line(_varied(mode, capabilities, sets[number % count], chance).fields)
        for number, mode in enumerate(_modes(capabilities))
    ]


def _line(fields: Mapping[str, int]) -> bytes:
    return json.dumps({"fields": {field: hex(value) for field, value in fields.items()}}).encode()


def _answered(lines: Sequence[bytes]) -> Callable[[], int]:
    judge = LineJudge("bench", load_capabilities(PROCESSOR))

    def turn() -> int:
        for number, line in enumerate(lines, 1):
            judge.answer(line, number)
        return len(lines)

    turn()  # what a stream does once is done
    return turn


def _modes(capabilities: Capabilities) -> Iterator[Any]:
    modes = [mode for mode in MODES if has_mode(mode, capabilities)]
    for number in range(VMCSS):
        yield modes[number % len(modes)]


def _varied(mode: Any, capabilities: Capabilities, shown: frozenset[str], chance: random.Random) -> Vmcs:
    whole = baseline(mode, capabilities)
    fields = {name: value for name, value in whole.fields.items() if name in shown}
    field = chance.choice(list(fields))
    fields[field] ^= 1 << chance.randrange(FIELDS[field].width)
    return attrs.evolve(whole, fields=fields)


__all__ = ["PROCESSOR", "VMCSS", "judged"]
