"""Settings left open: the weakest condition under which a form is critical; and where theorem and promise part."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_shop import NO, YES

from popek.checks import subject
from popek.checks.conditions import Conditions, critical_when, joined
from popek.checks.explanation import explain
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import Request, Survey, SurveyRow, survey
from popek.checks.verdict import Status, Truth
from popek.kernel.configuration import configure
from popek.kernel.machine import Setting, UnknownNameError
from popek.kernel.words import TRUE
from popek.machines import machine


def when(name: str, form: str, *names: str) -> Conditions:
    request = Request(Subject.of(name, None, ()))
    return critical_when(request, names, forms=[form])


@pytest.mark.parametrize(
    ("form", "names", "expected"),
    [
        ("SMSW r32", ("UMIP", "TSD"), ({"UMIP": (0,)},)),
        ("CLI", ("IOPL",), ({"IOPL": (1, 2, 3)},)),
        ("PUSHFD", ("UMIP", "IOPL"), ({},)),
        ("HLT", ("UMIP", "IOPL"), ()),
    ],
)
def test_the_condition_on_ia32_names_the_settings_that_matter_and_no_other(
    form: str, names: tuple[str, ...], expected: object
) -> None:
    (row,) = when("ia32", form, *names).rows
    assert row.when == expected
    assert row.unknown == ()


def test_forty_controls_left_open_are_decided_by_questions() -> None:
    """Their combinations are more than could be tried; a setting that no path asks for is not split on."""
    controls = [setting.name for setting in machine("ia32-vt-x").settings if setting.name != "MODE"]
    assert len(controls) > 40
    (row,) = when("ia32-vt-x", "RDTSC", *controls).rows
    assert row.when == ({"RDTSC_EXITING": (0,), "USE_TSC_OFFSETTING": (1,)},)
    assert row.unknown == ()


@pytest.mark.parametrize("form", ["SMSW r32", "POPFD", "RDTSC"])
def test_splitting_finds_what_every_combination_says(form: str) -> None:
    names = ("UMIP", "IOPL", "TSD")
    request = Request(Subject.of("ia32", None, ()))
    (row,) = critical_when(request, names, forms=[form]).rows
    settings = [machine("ia32").setting(name) for name in names]
    for values in itertools.product(*(setting.values for setting in settings)):
        chosen = dict(zip(names, values, strict=True))
        fixed = [f"{name}={value}" for name, value in chosen.items()]
        (one,) = survey(Request(Subject.of("ia32", None, fixed)), forms=[form], jobs=1).rows
        boxes = [all(chosen[k] in v for k, v in box.items()) for box in row.when]
        assert any(boxes) == (one.classes["critical"] is YES), chosen


def test_no_open_setting_is_an_error_that_names_some() -> None:
    with pytest.raises(UnknownNameError, match="UMIP"):
        when("ia32", "HLT")


AXES = {
    name: Setting(name, "", values, lambda state, value: TRUE)
    for name, values in (("P", (0, 1)), ("Q", (0, 1, 2)))
}
POINTS = list(itertools.product((0, 1), (0, 1, 2)))


@given(st.sets(st.sampled_from(POINTS)))
def test_joining_combinations_loses_none_and_adds_none(chosen: set[tuple[int, int]]) -> None:
    boxes = joined([{"P": (p,), "Q": (q,)} for p, q in sorted(chosen)], AXES)
    covered = {
        (p, q)
        for p, q in POINTS
        for box in boxes
        if p in box.get("P", (0, 1)) and q in box.get("Q", (0, 1, 2))
    }
    assert covered == chosen


def test_everything_joins_to_one_box_without_conditions() -> None:
    assert joined([{"P": (p,), "Q": (q,)} for p, q in POINTS], AXES) == ({},)


# -- surveys and explanations ---------------------------------------------------------------------


def test_a_premise_with_an_unknown_and_no_counterexample_is_unknown() -> None:
    found = survey(Request(Subject.of("pg74", None, ["GMODE=0"])), jobs=1)
    assert found.theorem1 is Status.REFUTED
    classes = {**found.rows[0].classes, "critical": Truth.UNKNOWN}
    doubtful = SurveyRow("X", "X", "", classes)
    innocent = tuple(row for row in found.rows if row.classes["critical"] is NO)
    assert Survey("pg74", "", found.configuration, (*innocent, doubtful)).theorem1 is Status.UNKNOWN
    assert Survey("pg74", "", found.configuration, (*found.rows, doubtful)).theorem1 is Status.REFUTED


def test_several_processes_find_what_one_finds() -> None:
    request = Request(Subject.of("pdp11-45", None, configure(machine("pdp11-45"), ())), components=False)
    forms = list(machine("pdp11-45").instructions)[:26]
    alone, together = survey(request, forms=forms, jobs=1), survey(request, forms=forms, jobs=2)
    assert [(r.form, r.classes) for r in alone.rows] == [(r.form, r.classes) for r in together.rows]


def test_too_many_paths_make_a_form_unknown_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "explore_instruction", partial(explore_instruction, budget=1))
    found = survey(Request(Subject.of("pg74", None, ())), forms=["ADD a, b"], jobs=1)
    (row,) = found.rows
    assert row.unknown
    assert "budget of 1 paths" in row.remark
    assert found.theorem1 is Status.UNKNOWN


def test_where_theorem_and_promise_part_the_explanation_says_why() -> None:
    request = Request(Subject.of("ia32", None, ()), promises=True)
    (form,) = explain(request, "SMSW r32").forms
    assert form.row.classes["critical"] is YES
    assert (form.row.faithful is NO) is (form.disagreement == "")
    (strapped,) = explain(Request(Subject.of("pg74", None, ())), "GMODE").forms
    assert strapped.disagreement == ""
