"""Questions about instructions: their classes, the promises they keep, when they are critical, what to rewrite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .subjects import forms, subject

if TYPE_CHECKING:
    from popek.checks.conditions import Conditions
    from popek.checks.explanation import Explanation
    from popek.checks.rewriting import Rewriting
    from popek.checks.survey import Survey
    from popek.kernel.machine import Machine


def classify(
    machine: str | Path | Machine[Any],
    /,
    *instructions: str,
    technique: str | None = None,
    promises: bool = True,
    by_the_letter: bool = False,
    time_is_state: bool = False,
    timeout: float = 0.0,
    jobs: int = 1,
    **settings: int | str,
) -> Survey:
    """The classes of a machine's instructions, with a witness for every critical one.

    Args:
        machine: a name, a Python file that declares one, or the machine itself.
        instructions: mnemonics or forms; all by default.
        technique: a way to virtualize it; the machine's first by default.
        promises: ask for fidelity and safety, too.
        by_the_letter: ask for the classes by the letter of 1974, too, and not for the promises.
        time_is_state: clocks count as resources.
        timeout: seconds that one question may take; 0 for no bound.
        jobs: processes; 0 for one per processor.  A library begins none unasked, and the answers are the same.
        settings: the configuration; a setting that is not named has its default.

    Raises:
        PopekError: a name or a setting that is not known, a file that declares no machine, or a question about nothing.

    >>> import popek
    >>> found = popek.classify("pg74", "GMODE", "LPSW", GMODE=0)
    >>> found.mnemonics("critical"), found.theorem1.value
    (['GMODE'], 'refuted')
    >>> found.rows[0].classes["mode_sensitive"].value
    'yes'
    >>> found.to_json()["schema"]
    'popek/classification/1'
    """
    from popek.checks.survey import ALL, Request, survey

    about = subject(machine, technique, settings, timeout=timeout, time_is_state=time_is_state)
    asked = Request(
        about, promises=promises and not by_the_letter, witnesses=ALL, by_the_letter=by_the_letter
    )
    return survey(asked, forms=forms(about.machine, instructions), jobs=jobs)


def explain(
    machine: str | Path | Machine[Any],
    instruction: str,
    /,
    *,
    technique: str | None = None,
    time_is_state: bool = False,
    timeout: float = 0.0,
    **settings: int | str,
) -> Explanation:
    """Everything about an instruction: classes, promises, witnesses, and what was asked.

    Args:
        instruction: a mnemonic or a form.

    Raises:
        PopekError: as for `classify`.

    >>> import popek
    >>> form = popek.explain("pg74", "GREL", GREL=0).forms[0]
    >>> form.row.faithful.value, sorted(form.witnesses)
    ('no', ['fidelity', 'location_sensitive', 'safety'])
    """
    from popek.checks.explanation import explain as explained
    from popek.checks.survey import Request

    about = subject(machine, technique, settings, timeout=timeout, time_is_state=time_is_state)
    return explained(Request(about, promises=True), instruction)


def critical_when(
    machine: str | Path | Machine[Any],
    /,
    *instructions: str,
    technique: str | None = None,
    time_is_state: bool = False,
    timeout: float = 0.0,
    **settings: int | str,
) -> Conditions:
    """Under which values of the settings that are `"?"` each instruction is critical.

    Raises:
        PopekError: as for `classify`; or no setting is left open.

    >>> import popek
    >>> found = popek.critical_when("pg74", "GMODE", GMODE="?")
    >>> found.rows[0].when
    ({'GMODE': (0,)},)
    """
    from popek.checks.conditions import critical_when as asked
    from popek.checks.survey import Request

    about = subject(
        machine, technique, settings, timeout=timeout, time_is_state=time_is_state, left_open=True
    )
    return asked(Request(about), forms=forms(about.machine, instructions))


def rewrite(
    machine: str | Path | Machine[Any],
    /,
    *instructions: str,
    technique: str | None = None,
    promise: Literal["both", "fidelity", "safety"] = "both",
    timeout: float = 0.0,
    jobs: int = 1,
    **settings: int | str,
) -> Rewriting:
    """The least set of forms that binary translation or paravirtualization must rewrite.

    Args:
        promise: what is to be kept.

    Raises:
        PopekError: as for `classify`.
    """
    from popek.checks.rewriting import rewriting

    about = subject(machine, technique, settings, timeout=timeout)
    return rewriting(
        about, promise=promise, forms=forms(about.machine, instructions), jobs=jobs, evidence=True
    )


__all__ = ["classify", "critical_when", "explain", "rewrite"]
