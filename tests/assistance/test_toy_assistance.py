"""A declaration of a user's own, and nothing else, gets every command, the atlas row and the comparison.

What is expected is read off the toy: LRA shows the VMM's register and SSHIFT sets it, so they must exit, and nothing
else has to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popek.cli import assist
from popek.cli.errors import UserError
from popek.kernel.outcome import Target, Trap, Vector
from popek.machines import MachineFileError, assistance, machine
from schemas import assert_valid

TOY = Path(__file__).with_name("toy.py")
FILE = str(TOY)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """What a command printed, as data; it has its schema."""

    def printed() -> Any:
        found = json.loads(capsys.readouterr().out)
        assert_valid(found)
        return found

    return printed


def test_the_declaration_is_short() -> None:
    assert len(TOY.read_text().splitlines()) < 80


def test_the_page_shows_this_declaration() -> None:
    page = Path(__file__).parents[2] / "docs/how-to/declare-an-assistance.md"
    assert f"```python\n{TOY.read_text()}```" in page.read_text()


def test_requirements_with_a_witness_for_each_need(said) -> None:
    assert assist.requirements(FILE, witnesses=True, json=True) == 0
    found = {row["form"]: row for row in said()["instructions"]}
    assert {form: (row["faithful"], row["safe"], row["exits"]) for form, row in found.items()} == {
        "LRA a, b": ("lra_exiting = 1", "always", "lra_exiting = 1"),
        "SSHIFT a": ("shift_exiting = 1", "shift_exiting = 1", "shift_exiting = 1"),
    }
    (need,) = found["LRA a, b"]["needs"]
    assert (need["control"], need["value"], need["witness"]["failure"]) == ("lra_exiting", 1, "unfaithful")
    assert need["witness"]["vmm"] == {"guest": "0x1", "shift": "0x1"}


def test_what_the_vmm_does_not_own_needs_nothing(said) -> None:
    assert assist.requirements(FILE, own="", json=True) == 0
    found = said()["instructions"]
    assert {row["faithful"] for row in found} | {row["safe"] for row in found} == {"always"}


def test_exits(said) -> None:
    assert assist.exits(FILE, json=True) == 0
    rows = {row["form"]: (row["exit_reason"], row["controls"]) for row in said()["instructions"]}
    assert rows["LRA a, b"] == (9, ["lra_exiting"])
    assert rows["SSHIFT a"] == (9, ["shift_exiting"])
    assert rows["GMODE a"] == (None, [])


def test_synthesis_sets_what_is_asked_for_and_no_more(said) -> None:
    assert assist.synthesize(FILE, json=True) == 0
    found = said()
    assert found["controls"] == {"lra_exiting": 1, "shift_exiting": 1}
    assert found["exits"] == ["LRA a, b", "SSHIFT a"]
    assert assist.synthesize(FILE, own="", json=True) == 0
    assert said()["controls"] == {"lra_exiting": 0, "shift_exiting": 0}


def test_a_configuration_is_judged_and_checked(said) -> None:
    assert assist.judge(FILE, set_=("lra_exiting=0", "shift_exiting=1"), jobs=1, json=True) == 0
    found = said()
    assert found["can_own"] == []
    rows = {row["form"]: row for row in found["instructions"]}
    assert [(h["owner"], h["failure"]) for h in rows["LRA a, b"]["harms"]] == [("shift", "unfaithful")]
    assert rows["SSHIFT a"]["needless_exit"]  # nothing can be owned, so nothing need exit
    assert assist.check(FILE, set_=("lra_exiting=1", "shift_exiting=0"), json=True) == 1
    found = said()
    assert found["outcome"] == "unsafe"
    assert [(row["form"], row["verdict"]) for row in found["instructions"]] == [("SSHIFT a", "unsafe")]
    assert assist.check(FILE, set_=("lra_exiting=1", "shift_exiting=1"), json=True) == 0
    assert said()["outcome"] == "sound"


def test_gain_interrupts_and_comparison(said) -> None:
    assert (
        assist.gain(FILE, "LRA", "GMODE", json=True) == 1
    )  # nothing is critical before, so nothing is gained
    after = {row["form"]: row["after"]["best"] for row in said()["instructions"]}
    assert after["LRA a, b"] == {"exits": "always", "failure": None}
    assert after["GMODE a"] == {"exits": "never", "failure": None}
    assert assist.interrupts(FILE, json=True) == 3
    assert said()["asked"] == "not-asked"
    assert assist.compare(FILE, only=("mode-bit", "best", "open", "theorem-1", "critical"), json=True) == 0
    answers = {q["name"]: next(iter(q["answers"].values()))["value"] for q in said()["queries"]}
    assert answers["mode-bit"] == ["guest"]
    assert answers["best"]["on"] == ["lra_exiting", "shift_exiting"]
    assert (answers["open"], answers["theorem-1"]) == ([], "holds")
    assert answers["critical"] == {"yes": [], "unknown": []}


def test_the_technique_of_classify_and_the_atlas_row_come_from_the_declaration(said) -> None:
    from popek.cli.atlas import atlas

    known = machine(FILE)
    assert list(known.techniques) == ["toy"]
    assert {"LRA_EXITING", "SHIFT_EXITING"} <= {setting.name for setting in known.settings}
    assert atlas(machines=(FILE,), json=True) == 0
    (row,) = said()["entries"]
    assert (row["id"], row["theorem1"]) == ("toy.toy.default", "holds")


def test_a_control_that_does_nothing_is_noticed() -> None:
    """Of a machine whose LRA forgets to look at its control, no setting is faithful."""
    import attrs

    from popek.assistance.desk import Desk

    toy = assistance(FILE)

    def broken() -> Any:
        made = toy.machine()
        lra = made.instructions["LRA a, b"]

        def forgetful(cpu: Any, *operands: Any) -> None:
            cpu.controls.lra_exiting = 0
            lra.semantics(cpu, *operands)

        made.instructions[lra.form] = attrs.evolve(lra, semantics=forgetful)
        return made

    found = Desk(attrs.evolve(toy, machine=broken)).required("LRA a, b", toy.owner())
    assert found.condition(found.faithful) == "never"


def test_a_trap_that_goes_to_the_guest_is_no_exit() -> None:
    toy = assistance(FILE)
    put = toy.arrange(toy.owner(), {c.name: c.symbol for c in toy.controls}, {})
    state, memory = toy.machine().state.reset(), Vector("memory trap", 0)
    assert put.technique.target(Trap(Vector("exit", 9), None, False, state)) is Target.GUEST  # another's
    assert put.technique.target(Trap(memory, None, True, state)) is Target.GUEST


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("lra=1",), "--set lra=1: expected NAME=0 or NAME=1 with NAME of lra_exiting, shift_exiting"),
        (("lra_exiting=1",), "--set: not given, and it decides what exits: shift_exiting"),
        (("lra_exiting",), "--set lra_exiting: expected FIELD=VALUE"),
    ],
)
def test_bad_input_is_one_line(fields: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        assist.judge(FILE, set_=fields)
    assert str(caught.value) == message


def test_a_file_without_a_declaration_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(MachineFileError, match="expected one Assistance; found 0"):
        assistance(str(empty))
