"""`popek assist merge`: how the controls of a hypervisor and of one inside it are merged for the inner one's guest."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import AsJson, assert_one_of
from .output import console, print_json, progress

_AS_EXPECTED, _REFUTED = 0, 1
_SHOWN = 4


def merge(
    technique: Annotated[
        str, Parameter(help="The technique, such as svm; or a Python file with an Assistance.")
    ],
    /,
    *instructions: str,
    by: Annotated[
        str, Parameter(help="derived: each control as it has to be; or, and: all of them.")
    ] = "derived",
    json: AsJson = False,
) -> int:
    """Derive how each control has to be merged, and ask what is lost and what is needless if it is merged so.

    Exit code: 0 no exit that one of the two wants is lost, 1 some is, 2 bad input.

    Args:
        instructions: only these forms or mnemonics; one form of each instruction by default.
    """
    from popek.assistance.merging import merged, rules

    from .assist_input import desk_named, forms_named

    assert_one_of("--by", by, ("derived", "or", "and"))
    desk = desk_named(technique)
    forms = forms_named(desk, instructions) if instructions else desk.representatives()
    derived = rules(desk, forms)
    found = []
    with progress("asking") as show:
        for form in forms:
            found.append(merged(desk, form, derived if by == "derived" else by))
            if show is not None:
                show(len(found), len(forms))
    lost = any(item.lost for item in found)
    if json:
        rows = [
            {
                "form": item.form,
                "lost": [{name: list(values) for name, values in case.items()} for case in item.lost],
                "needless": [{name: list(values) for name, values in case.items()} for case in item.needless],
            }
            for item in found
        ]
        print_json({"schema": "popek/assistance-merge/1", "by": by, "rules": dict(derived), "forms": rows})
    else:
        from popek.report import assistance as report

        console().print(report.merges(desk.assistance, derived, found, _SHOWN))
    return _REFUTED if lost else _AS_EXPECTED
