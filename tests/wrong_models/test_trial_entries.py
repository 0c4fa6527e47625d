"""`popek machines --check`: what is wrong with deliveries, interrupts and relocation is one line, with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_trial import check

Changes = tuple[tuple[str, str], ...]

IMPORTS = ("import Machine\n", "import Machine\nfrom popek.kernel.interruption import Interruption\n")


def delivers(body: str) -> Changes:
    text = "\n\ndef deliver(before, trap):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    return (("", text + "\n\ntoy.deliver = deliver\n"),)


def interrupts(takes: str, enter: str, given: str = "{}") -> Changes:
    made = f"(Interruption('bell', lambda s, g: {takes}, lambda s, g: {enter}, {given}),)"
    return (IMPORTS, ("", f"\n\ntoy.interruptions = {made}\n"))


def relocates(body: str) -> Changes:
    return (("", f"\n\ntoy.relocate, toy.relocation_width = (lambda s, offset: {body}), 8\n"),)


GOOD = "cpu = before.copy()\ncpu.mode = Word(1, 0)\nreturn cpu"
CODE = (
    ('trap", 1)', 'trap", 1, 8)'),
    ("raise Fault(PRIVILEGED)", "raise Fault(PRIVILEGED, cpu.acc)"),
)
INVARIANT = (("    techniques={", "    invariant=lambda s: s.timer != 7,\n    techniques={"),)

FAULTS: dict[str, tuple[Changes, str, int, str]] = {
    "a delivery that gives nothing": (
        delivers("cpu = before.copy()"),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of privileged-instruction trap gives None: expected a state of Toy",
    ),
    "a delivery that changes what it is given": (
        delivers("before.mode = Word(1, 0)\nreturn before"),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of .* changes the state it is given: begin with a copy",
    ),
    "a delivery with a misspelt register": (
        delivers("cpu = before.copy()\ncpu.mod = Word(1, 0)\nreturn cpu"),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of .*: Toy has no component 'mod'; near: mode",
    ),
    "a delivery that needs a code where there is none": (
        delivers("cpu = before.copy()\ncpu.acc = trap.error_code + 1\nreturn cpu"),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of .*: TypeError",
    ),
    "a code of another width than what takes it": (
        (*CODE, *delivers("cpu = before.copy()\ncpu.mode = trap.error_code\nreturn cpu")),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of .*mode has 1 bits, not 8",
    ),
    "a delivery into a state that is none": (
        (*INVARIANT, *delivers("cpu = before.copy()\ncpu.timer = Word(8, 7)\nreturn cpu")),
        "mistake",
        2,
        r"toy.py:\d+: toy: deliver of .* leads to a state that the invariant excludes: Toy\(.*timer=7",
    ),
    "a delivery that counts": (
        (
            *delivers(
                "calls.append(1)\ncpu = before.copy()\ncpu.acc = Word(8, len(calls) % 256)\nreturn cpu"
            ),
            ("class Toy(", "calls = []\n\n\nclass Toy("),
        ),
        "law",
        1,
        r"toy: deliver of .*: acc is 0x\w+ explored and 0x\w+ on numbers",
    ),
    "an interrupt that leads nowhere": (
        interrupts("s.acc == 0", "None"),
        "mistake",
        2,
        r"toy.py:\d+: toy: interruption bell gives None: expected a state of Toy",
    ),
    "an interrupt that is given less than it takes": (
        interrupts("s.acc == 0", "s.with_changes({'acc': g['number']})"),
        "mistake",
        2,
        r"toy.py:\d+: toy: interruption bell: KeyError: number",
    ),
    "an interrupt with too wide a number": (
        interrupts("s.acc == 0", "s.with_changes({'mode': g['number']})", "{'number': 8}"),
        "mistake",
        2,
        r"toy.py:\d+: toy: interruption bell: .*mode has 1 bits, not 8",
    ),
    "an interrupt that is never taken": (
        interrupts("s.acc != s.acc", "s"),
        "advice",
        0,
        r"toy: interruption bell is taken in no state that was found",
    ),
    "a relocation that changes what it is given": (
        relocates("s.__setitem__('acc', s.acc + offset) or s"),
        "mistake",
        2,
        r"toy.py:\d+: toy: relocate changes the state it is given",
    ),
    "a relocation by nothing that is none": (
        relocates("s.with_changes({'acc': s.acc + offset + 1})"),
        "advice",
        0,
        r"toy.py:\d+: toy: relocate\(state, 0\) changes acc",
    ),
    "an advance that fails is told once": (
        (("    techniques={", "    advance=lambda cpu, operands: operands['pc'],\n    techniques={"),),
        "mistake",
        2,
        r"toy.py:\d+: toy, INC: KeyError: pc",
    ),
    "a leaf of the VMM's that is the guest's own": (
        (('replaced=("timer",)', 'replaced=("timer",), guests_own=("timer",)'),),
        "advice",
        0,
        r"toy under ring-deprivileging: timer in owned and in guests_own: .* makes no instruction control-sens",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_one_line(what: str, tmp_path: Path) -> None:
    changes, kind, code, line = FAULTS[what]
    status, found = check(tmp_path, changes)
    (only,) = found
    assert (status, only[0]) == (code, kind), only
    assert re.search(line, only[1]), only[1]


@pytest.mark.parametrize(
    "changes",
    [
        delivers(GOOD),
        (*CODE, *delivers(GOOD.replace("return", "cpu.acc = trap.error_code\nreturn"))),
        delivers("if trap.vector is PRIVILEGED and before.acc == 3:\n    raise Fault(PRIVILEGED)\n" + GOOD),
        interrupts(
            "(s.timer == g['number']) & (s.mode == 1)", "s.with_changes({'mode': 0})", "{'number': 8}"
        ),
        relocates("s.with_changes({'acc': s.acc + offset})"),
    ],
)
def test_what_is_right_gets_no_remark(changes: Changes, tmp_path: Path) -> None:
    assert check(tmp_path, changes) == (0, [])
