"""What no question decided is not taken as kept: the synthesis avoids it where it can, and names it where it cannot.

The requirements are written down here, not derived: of two instructions each has one control, and what is undecided
is said for each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from popek.assistance.desk import desk_of
from popek.assistance.exits import excess
from popek.assistance.requirements import Requirement
from popek.assistance.synthesis import Synthesis, processor_of, synthesize
from popek.cli import assist
from popek.machines import assistance

DESK = desk_of(assistance(str(Path(__file__).with_name("toy.py"))))
BOTH = frozenset({(0,), (1,)})


def requirement(form: str, control: str, undecided: frozenset[tuple[int, ...]]) -> Requirement:
    """Nothing refutes either setting; with 1 the instruction exits."""
    return Requirement(
        form,
        form.split()[0],
        (control,),
        faithful=BOTH,
        safe=BOTH,
        exits=frozenset({(1,)}),
        completes=frozenset({(0,)}),
        undecided=undecided,
    )


def found(undecided: frozenset[tuple[int, ...]]) -> Synthesis:
    requirements = [
        requirement("LRA a, b", "lra_exiting", undecided),
        requirement("SSHIFT a", "shift_exiting", frozenset()),
    ]
    return synthesize(DESK, processor_of(DESK), (), requirements=requirements)


def test_where_all_is_decided_nothing_exits() -> None:
    choice = found(frozenset())
    assert choice.controls == {"lra_exiting": 0, "shift_exiting": 0}
    assert (choice.undecided, choice.cautious) == ((), ())


def test_a_decided_setting_goes_before_the_fewest_exits_and_says_so() -> None:
    choice = found(frozenset({(0,)}))
    assert choice.controls == {"lra_exiting": 1, "shift_exiting": 0}
    assert (choice.undecided, choice.cautious) == ((), ("LRA a, b",))
    assert choice.to_json()["cautious"] == ["LRA a, b"]


def test_what_no_setting_decides_is_named() -> None:
    choice = found(BOTH)
    assert choice.undecided == ("LRA a, b",)
    assert choice.to_json()["undecided"] == ["LRA a, b"]


def test_an_exit_is_not_needless_because_of_a_setting_that_nobody_decided() -> None:
    duty = DESK.duty("LRA a, b", DESK.assistance.owner(()))
    every = requirement("LRA a, b", "lra_exiting", frozenset())
    assert excess(duty, every) == {(1,)}
    assert excess(duty, requirement("LRA a, b", "lra_exiting", frozenset({(0,)}))) == frozenset()


def test_the_command_ends_with_undecided(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import popek.assistance.synthesis as module

    monkeypatch.setattr(module, "synthesize", lambda *_, **__: found(BOTH))
    name = str(Path(__file__).with_name("toy.py"))
    assert assist.synthesize(name) == 3
    assert "not decided under this setting: LRA a, b" in capsys.readouterr().out
    assert assist.synthesize(name, json=True) == 3
    assert json.loads(capsys.readouterr().out)["undecided"] == ["LRA a, b"]
