"""`popek vmcs generate` and `popek vmcs rules`: VMCSs at the edge of one check, and questions about all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import attrs
import pytest

from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS
from popek.architectures.vtx.entry_checks.registry import Condition
from popek.architectures.vtx.verdict import judge
from popek.cli.errors import UserError
from popek.cli.vmcs_questions import app
from popek.vmcs.edges import Impossible
from popek.vmcs.generate import generate
from popek.vmcs.redundancy import ask
from popek.vmcs.standing import Answers

TIGERLAKE = load_capabilities("bochs-tigerlake")
Run = Callable[..., tuple[int, str]]

# One of each group, and those that need memory, other fields, or a mode.
SOUGHT = (
    *("CTL-CAP-01", "CTL-IOBM-01", "CTL-TPR-03", "EXIT-02", "ENTRY-03", "INJ-04"),
    *("HOST-CR-02", "HOST-SEG-01", "GUEST-CR-02", "GUEST-CR-04", "GUEST-AR-CS-06", "GUEST-RFL-05"),
    *("GUEST-PDPTE-01", "GUEST-LINK-04", "GUEST-INT-03", "GUEST-DBG-01", "LOAD-01", "LOAD-06"),
)  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*args: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setenv("COLUMNS", "120")
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


@pytest.mark.parametrize("check_id", SOUGHT)
def test_they_violate_this_check_and_no_other_or_are_one_bit_away(check_id: str) -> None:
    edges = list(generate(check_id, 6, 7, TIGERLAKE))
    assert len(edges) == 6
    for edge in edges:
        verdict = judge(edge.found, TIGERLAKE)
        found = {item.id for item in (*verdict.failed, *verdict.warnings)}
        broken = {name for name in found if CHECKS[name].certainty != "warning"}
        if edge.violates:
            assert broken == {check_id}
            continue
        assert broken == set()
        assert edge.flip is not None
        name, bit = edge.flip
        flipped = judge(edge.found.with_fields(**{name: edge.found.fields[name] ^ 1 << bit}), TIGERLAKE)
        assert [item.id for item in flipped.failed] == [check_id]
    assert any(edge.violates for edge in edges)
    assert len({tuple(edge.found.fields.items()) + edge.found.memory for edge in edges}) > 1


def test_most_are_on_both_sides_of_the_edge() -> None:
    edges = list(generate("GUEST-AR-CS-06", 8, 1, TIGERLAKE))
    assert {edge.violates for edge in edges} == {True, False}
    assert len({edge.mode for edge in edges}) > 1


def test_the_seed_decides() -> None:
    first, again, other = (list(generate("GUEST-CR-01", 5, seed, TIGERLAKE)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("check_id", "why"), [("PRE-06", "the instruction"), ("HOST-ASZ-04", "alone")])
def test_what_cannot_be_violated_alone_says_so(check_id: str, why: str) -> None:
    with pytest.raises(Impossible, match=why):
        list(generate(check_id, 1, 1, TIGERLAKE))


def test_the_lines_read_back(run: Run) -> None:
    code, lines = run("generate", "--violate", "gUEST-CR-02", "--count", "4", "--seed", "3")
    assert code == 0
    wanted = [json.loads(line) for line in lines.splitlines()]
    assert len(wanted) == 4
    code, out = run("check", "--jsonl", "-", stdin=lines)
    assert code == 1
    for line, verdict in zip(wanted, map(json.loads, out.splitlines()), strict=True):
        assert [item["id"] for item in verdict["failed"]] == (["GUEST-CR-02"] if line["violates"] else [])
        assert verdict["outcome"]["kind"] == ("entry-failure" if line["violates"] else "enters")
        assert verdict["name"] == line["name"]


def test_a_real_processor_of_which_something_is_unknown(run: Run) -> None:
    code, lines = run(
        "generate", "--violate", "CTL-CAP-03", "--count", "2", "--capabilities", "intel-haswell"
    )
    assert code == 0
    code, out = run("check", "--jsonl", "-", stdin=lines)
    assert json.loads(out.splitlines()[0])["failed"][0]["id"] == "CTL-CAP-03"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("generate", "--violate", "GUEST-CR-99"), "GUEST-CR-99"),
        (("generate", "--violate", "GUEST-CR-02", "--count", "0"), "--count"),
        (("generate", "--violate", "GUEST-CR-02", "--capabilities", "pentium"), "pentium"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], text: str, run: Run) -> None:
    with pytest.raises(UserError, match=text) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


# -- questions about the rule set ----------------------------------------------------------


@pytest.fixture(scope="module")
def answers() -> Answers:
    return ask(TIGERLAKE)


def test_all_checks_can_pass_in_every_mode(answers: Answers) -> None:
    assert dict(answers.modes) == dict.fromkeys(("64-bit", "pae", "32-bit", "v8086", "real"), True)


def test_every_check_gets_one_answer(answers: Answers) -> None:
    parts = (answers.alone, answers.never, tuple(answers.shadowed), answers.unknown, answers.outside)
    found = [name for part in parts for name in part]
    assert len(found) == len(set(found))
    assert set(found) == {name for name, check in CHECKS.items() if check.certainty != "warning"}
    assert answers.unknown == ()


def test_known_shadows(answers: Answers) -> None:
    """What the processor lacks is refused with its control; SMM's controls are refused outside SMM."""
    assert answers.shadowed["CTL-PI-01"] == ("CTL-CAP-01",)  # no posted interrupts on this model
    # Each of the two is enough: entry to SMM outside it is refused, and needs what is refused outside SMM.
    assert answers.shadowed["ENTRY-02"] in (("ENTRY-01",), ("GUEST-INT-07", "GUEST-INT-08"))
    assert {"GUEST-CR-02", "GUEST-CR-04", "CTL-IOBM-01", "HOST-CR-02", "GUEST-LINK-04"} <= set(answers.alone)


def test_a_check_that_is_repeated_shadows_and_is_shadowed() -> None:
    again = attrs.evolve(CHECKS["GUEST-CR-02"], id="GUEST-CR-02-AGAIN")
    found = ask(TIGERLAKE, [*CHECKS.values(), again])
    assert found.shadowed["GUEST-CR-02"] == ("GUEST-CR-02-AGAIN",)
    assert found.shadowed["GUEST-CR-02-AGAIN"] == ("GUEST-CR-02",)


def test_a_check_whose_gates_contradict_each_other_is_never_violated() -> None:
    odd = attrs.evolve(
        CHECKS["GUEST-CR-02"],
        gates=(
            Condition("PG", lambda v: v.GUEST_CR0 & 1 << 31 != 0),
            Condition("no PG", lambda v: v.GUEST_CR0 & 1 << 31 == 0),
        ),
    )
    found = ask(TIGERLAKE, [odd if check.id == odd.id else check for check in CHECKS.values()])
    assert "GUEST-CR-02" in found.never
    assert "GUEST-CR-02" not in found.alone


def test_the_command(run: Run) -> None:
    code, out = run("rules", "--capabilities", "bochs-core2-penryn-t9600", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["satisfiable"] == dict.fromkeys(("64-bit", "pae", "32-bit", "v8086"), True)
    # Without unrestricted guests PE has to be 1 anyway.
    assert answer["shadowed"]["GUEST-CR-02"] == ["CTL-CAP-03", "GUEST-CR-01"]
    _, out = run("rules", "--capabilities", "bochs-core2-penryn-t9600")
    assert "GUEST-CR-02  by CTL-CAP-03, GUEST-CR-01" in out
