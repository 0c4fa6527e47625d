"""Models with a mistake: each is told in one line, with its place, and none gets a verdict.

A wrong model is the machine of `docs/machines.md` with something put in the place of something else.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands import popek

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
TOY = PAGE.read_text(encoding="utf-8").split("<!-- file: toy.py -->\n```python\n")[1].split("```\n")[0]


def _at_the_end(text: str) -> tuple[tuple[str, str], ...]:
    return (("", text),)


def _form(body: str, form: str = "WRONG", arguments: str = "cpu") -> tuple[tuple[str, str], ...]:
    return _at_the_end(f'\n\n@toy.instruction("{form}")\ndef wrong({arguments}):\n    {body}\n')


# What is put in the place of what (of nothing: at the end), and what the line must say.
WRONG: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    # Semantics
    "a component that is not there": (
        _form("cpu.timr = Word(8, 0)"),
        r"toy.py:\d+: toy, WRONG: Toy has no component 'timr'; near: timer",
    ),
    "reading one": (_form("cpu.acc = cpu.timr"), r"toy.py:\d+: .*no component 'timr'; near: timer"),
    "another width": (_form("cpu.acc = Word(4, 0)"), r"toy.py:\d+: .*acc has 8 bits, not 4"),
    "mixed widths": (_form("cpu.acc = cpu.acc + cpu.mode"), r"toy.py:\d+: .*8.*1"),
    "a number too large": (_form("cpu.acc = 256"), r"toy.py:\d+: .*0x100 does not fit 8 bits"),
    "a word returned": (_form("return cpu.acc + 1"), r"WRONG: .*returns .*assign"),
    "a generator": (_form("yield cpu.acc"), r"WRONG: .*returns .*assign"),
    "no such name": (_form("cpu.acc = acc"), r"toy.py:\d+: .*NameError: name 'acc' is not defined"),
    "a string for a vector": (_form('raise Fault("priv")'), r"toy.py:\d+: .*expected a Vector"),
    "an error code of another width": (
        _form('raise Fault(Vector("late", 9, 16), cpu.acc)'),
        r"toy.py:\d+: .*an error code of 8 bits: late has one of 16",
    ),
    "an error code of a vector that has none": (
        _form('raise Fault(Vector("late", 9), 5)'),
        r"toy.py:\d+: .*late has no error code: expected a width, such as Vector\('late', 9, 32\)",
    ),
    "a word and a string": (_form('cpu.acc = cpu.acc + "1"'), r"toy.py:\d+: .*does not mix with str"),
    "bits past the end": (_form("cpu.acc = cpu.acc[8:1]"), r"toy.py:\d+: .*WRONG"),
    "division by nothing": (_form("cpu.acc = cpu.acc + 1 // 0"), r"toy.py:\d+: .*ZeroDivisionError"),
    "endless recursion": (_form("wrong(cpu)"), r"toy.py:\d+: .*RecursionError"),
    "an operand that no form names": (
        _form("cpu.acc = value", arguments="cpu, value"),
        r"WRONG: the semantics takes cpu, value; operands that the form names: none",
    ),
    "an operand kind that is not declared": (
        _form("cpu.acc = r8", form="WRONG r8", arguments="cpu, r8"),
        r"WRONG r8: .*operand kinds of the machine: none",
    ),
    "a semantics without the state": (_form("pass", arguments=""), r"WRONG: the semantics takes nothing"),
    "the same form twice": (_form("pass", form="INC"), r"toy.py:\d+: toy: INC is declared twice"),
    # State
    "a component called like a method": (
        (("timer = word(8", "copy = word(8, role=Role.RESOURCE)\n    timer = word(8"),),
        r"no component can be called 'copy'",
    ),
    "a role as a string": ((("role=Role.MODE", 'role="mode"'),), r"role='mode': expected one of"),
    "no role": ((("role=Role.MODE", "role=None"),), r"role=None: expected one of"),
    "no width": ((("acc = word(8", "acc = word(0"),), r"toy.py:\d+: .*0 bits: expected a number above 0"),
    "a reset that does not fit": (
        (("timer = word(8, role=Role.RESOURCE)", "timer = word(8, role=Role.RESOURCE, reset=256)"),),
        r"reset=0x100 does not fit 8 bits",
    ),
    "a field past the register": (
        _at_the_end(
            "\n\nfrom popek.kernel.state import Register, bit, register\n\n\nclass F(Register):\n    z = bit(9)\n\n\n"
            "class Other(State):\n    f = register(F, 8)\n"
        ),
        r"toy.py:\d+: .*F.z: bit 9 of a register of 8 bits",
    ),
    "a field upside down": (
        _at_the_end("\n\nfrom popek.kernel.state import bits\n\nz = bits(0, 3)\n"),
        r"toy.py:\d+: .*higher number first",
    ),
    "no state at all": (
        (("    Toy,\n", "    dict,\n"),),
        r"state=<class 'dict'>: expected a class of states",
    ),
    "two banks that share a register's name": (
        (
            (
                "    acc = word(8",
                '    low, high = bank(("r0", "r1"), 8), bank(("r1", "r2"), 8)\n    acc = word(8',
            ),
            ("import Role, State, word\n", "import Role, State, bank, word\n"),
        ),
        r"Toy: two components are called 'r1': expected a name of its own for each",
    ),
    # Machine
    "user is supervisor": (
        (("    user=lambda state: state.mode == 1", "    user=lambda state: state.mode == 0"),),
        r"supervisor and user overlap",
    ),
    "a mode that is no condition": (
        (("    user=lambda state: state.mode == 1", "    user=lambda state: state.acc"),),
        r"user gives a word of 8 bits: expected a condition",
    ),
    "a mode that says nothing": (
        (("    user=lambda state: state.mode == 1", "    user=lambda state: None"),),
        r"user gives None: expected a condition",
    ),
    "a mode of a misspelt register": (
        (("    user=lambda state: state.mode == 1", "    user=lambda state: state.mod == 1"),),
        r"toy.py:\d+: toy: user: Toy has no component 'mod'; near: mode",
    ),
    "an invariant that nothing fulfils": (
        (("    techniques={", "    invariant=lambda s: (s.acc == 0) & (s.acc == 1),\n    techniques={"),),
        r"no state of toy fulfils",
    ),
    "no instruction": (((TOY[TOY.index("\n@toy.instruction") :], "\n"),), r"no instruction is declared"),
    "a default that is no value": (
        (
            (
                "    Toy,\n",
                "    Toy,\n    settings=(Setting('X', 'x', (0, 1), lambda s, v: s.acc[0] == v, 2),),\n",
            ),
            ("import Machine\n", "import Machine, Setting\n"),
        ),
        r"setting X: default=2 is none of its values 0, 1",
    ),
    "a setting of a leaf that is not there": (
        (
            ("    Toy,\n", "    Toy,\n    settings=(leaf_setting('X', 'timr', 1, 'x'),),\n"),
            ("import Machine\n", "import Machine, leaf_setting\n"),
        ),
        r"setting X: leaf names 'timr'.*near: timer",
    ),
    "a relocation that gives nothing": (
        (
            (
                "    techniques={",
                "    relocate=lambda s, offset: None,\n    relocation_width=8,\n    techniques={",
            ),
        ),
        r"toy: relocate\(state, offset\) gives None: expected a state of Toy",
    ),
    "a relocation by offsets of no width": (
        (("    techniques={", "    relocate=lambda s, offset: s,\n    techniques={"),),
        r"relocate without relocation_width: expected the bits of an offset",
    ),
    "an interrupt that is taken on no condition": (
        (
            (
                "    techniques={",
                "    interruptions=(Interruption('clock', lambda s, g: s.acc, lambda s, g: s),),\n    techniques={",
            ),
            ("import Machine\n", "import Machine\nfrom popek.kernel.interruption import Interruption\n"),
        ),
        r"interruption clock: takes gives a word of 8 bits: expected a condition",
    ),
    "an advance that fails": (
        (("    techniques={", "    advance=lambda cpu, operands: operands['pc'],\n    techniques={"),),
        r"toy.py:\d+: toy, \w+: KeyError: pc",
    ),
    # Technique
    "a component of several leaves": (
        (
            ("    acc = word(8", "    flags = register(Flags, 8, role=Role.RESOURCE)\n    acc = word(8"),
            ("class Toy(State):", "class Flags(Register):\n    z, n = bit(0), bit(1)\n\n\nclass Toy(State):"),
            ("import Role, State, word\n", "import Register, Role, State, bit, register, word\n"),
            ('replaced=("timer",)', 'replaced=("timer", "flags")'),
        ),
        r"replaced names 'flags', a component of 3 leaves: expected the leaves .* of flags.z, flags.n, flags\[7:2\]",
    ),
    "an owned leaf that is not there": (
        (('owned=("mode", "timer")', 'owned=("mode", "timr")'),),
        r"owned names 'timr', which is no leaf and no component; near: timer",
    ),
    "a shadowed one": (
        (('shadowed=("mode", "timer")', 'shadowed=("mood", "timer")'),),
        r"shadowed names 'mood'.*near: mode",
    ),
    "a tuple forgotten": (
        (('replaced=("timer",)', 'replaced=("timer")'),),
        r"""replaced='timer' is a string: expected a tuple of names, such as \("timer",\)""",
    ),
    "the guest's own, misspelt": (
        (('replaced=("timer",)', 'replaced=("timer",), guests_own=("ac",)'),),
        r"guests_own names 'ac'.*near: acc",
    ),
    "a map that gives nothing": ((("    return hardware\n", ""),), r"map\(guest, private\) gives None"),
    "a map that changes its guest": (
        (("hardware = guest.copy()", "hardware = guest"),),
        r"map\(guest, private\) changes the states it is given",
    ),
    "a map that stays where it was": (
        (("hardware.mode, hardware.timer = Word(1, 1)", "hardware.mode, hardware.timer = Word(1, 0)"),),
        r"the map never leads to a state that `deprivileged` calls one of user mode",
    ),
    "a map with a misspelt register": (
        (("private.timer\n", "private.timr\n"),),
        r"toy.py:\d+: .*map: Toy has no component 'timr'; near: timer",
    ),
    "a deprivileged that nothing is": (
        (
            (
                "deprivileged=lambda state: state.mode == 1",
                "deprivileged=lambda state: state.mode == state.mode + 1",
            ),
        ),
        r"there is no user state",
    ),
    "no technique": (
        (("    techniques={technique.name: technique},\n", ""),),
        r"unknown technique",
    ),
}


def written(folder: Path, changes: tuple[tuple[str, str], ...]) -> Path:
    """The toy with the changes, each of which is found once."""
    text = TOY
    for old, new in changes:
        if old:
            assert text.count(old) == 1, old
        text = text.replace(old, new) if old else text + new
    path = folder / "toy.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", ["classify", "explain", "prove"])
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_model_is_one_line_and_no_verdict(
    what: str,
    command: str,
    tmp_path: Path,
) -> None:
    changes, line = WRONG[what]
    path = written(tmp_path, changes)
    asked = ["WRONG"] if '@toy.instruction("WRONG' in path.read_text() else ["INC"]
    ran = popek(command, "./toy.py", *(asked if command == "explain" else []), folder=tmp_path)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert ran.stdout.strip() == ""
    (only,) = ran.stderr.strip().splitlines()
    assert re.search(line, only), only


def test_there_are_forty() -> None:
    assert len(WRONG) >= 40
