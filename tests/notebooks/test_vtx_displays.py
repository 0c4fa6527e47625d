"""VT-x in notebooks: figures hold what the answers say, and bad questions get one line."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from popek import notebook
from popek.notebook import NotebookError


def test_figure_of_exits_says_what_the_table_says() -> None:
    found = notebook.assist_exits("vt-x", "RDTSC", "CPUID", "CLD")
    drawn = found.figure()
    assert "rdtsc_exiting → RDTSC" in str(drawn)
    assert "RDTSC → 16 RDTSC" in str(drawn)
    assert "CPUID → 10 CPUID" in str(drawn)
    assert str(drawn).splitlines()[-1] == "CLD"  # no control, no exit
    kinds = dict(
        re.findall(r'<g class="(\w*)">(?:<title>.*?</title>)?<rect[^>]*/><text[^>]*>([^<]*)<', drawn.svg)
    )
    assert (kinds["red"], kinds["green"], kinds["blue"]) == ("CPUID", "CLD", "rdtsc_exiting")
    assert [item.controls for item in found] == [("primary.rdtsc_exiting",), (), ()]


def test_what_a_vmm_does_not_own_asks_nothing() -> None:
    assert not notebook.assist_requirements("vt-x", "RDTSC")[0].always
    assert notebook.assist_requirements("vt-x", "RDTSC", own=["halt"])[0].always
    needs = notebook.assist_requirements("vt-x", "HLT", own=["halt"], witnesses=True)[0].needs
    assert [(need.knob, need.value, need.witness.failure) for need in needs] == [
        ("primary.hlt_exiting", 1, "unsafe")
    ]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: notebook.assist_exits("vt-x", "HTL"), "unknown instruction 'HTL'; did you mean"),
        (lambda: notebook.assist_requirements("vt-x", "HLT", own=["tiem"]), "time"),
        (lambda: notebook.assist_synthesize("vt-x", "pentium"), "pentium"),
        (lambda: notebook.assist_judge("vt-x", "KWM"), "unknown configuration 'KWM'; did you mean KVM"),
    ],
)
def test_a_bad_question_gets_one_clear_line(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(NotebookError, match=re.escape(message)) as caught:
        ask()
    assert "\n" not in str(caught.value)
