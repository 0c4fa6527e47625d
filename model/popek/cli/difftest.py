"""`popek difftest`: compare the models with emulators that were written by others."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from popek.emulators import declared_difftests

from .difftest_non_root import difftest_non_root
from .difftest_running import instructions_on_emulator, print_found
from .difftest_svm import difftest_svm
from .difftest_vm_entry import difftest_vm_entry
from .difftest_vmrun import difftest_vmrun
from .options import AsJson, Cases, Seed, assert_cases, assert_one_of

if TYPE_CHECKING:
    from popek.emulators.differential import DifftestReport

app = App(name="difftest", help="Compare the models with emulators that were written by others.")

app.command(difftest_vm_entry, name="vm-entry")
app.command(difftest_non_root, name="non-root")
app.command(difftest_vmrun, name="vmrun")
app.command(difftest_svm, name="svm")

Against = Annotated[str, Parameter(help="bochs or unicorn.")]
Emulator = Annotated[str, Parameter(help="The emulator.")]


@app.command
def ia32(
    *forms: str, against: Against = "bochs", cases: Cases = 2000, seed: Seed = 0, json: AsJson = False
) -> int:
    """Run one instruction from random states, on the model and on an emulator.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no emulator.

    Args:
        forms: instruction forms or mnemonics; by default all, or with unicorn those that it runs faithfully.
    """
    from popek.emulators.ia32.compare import BOCHS, difftest

    _assert_possible(against, cases)
    emulator: Any = BOCHS
    if against == "unicorn":
        from popek.emulators.ia32.unicorn import FORMS, UNICORN

        emulator, forms = UNICORN, forms or tuple(FORMS)
    return _compared(
        lambda show: difftest(cases, seed, list(forms) or None, show, against=emulator), cases, json
    )


@app.command(name="x86-64")
def x86_64(
    *forms: str, against: Against = "bochs", cases: Cases = 2000, seed: Seed = 0, json: AsJson = False
) -> int:
    """Run one instruction in 64-bit or compatibility mode from random states, on the model and on an emulator.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no emulator.

    Args:
        forms: instruction forms or mnemonics; all by default.
    """
    from popek.emulators.x86_64.compare import BOCHS, difftest

    _assert_possible(against, cases)
    emulator: Any = BOCHS
    if against == "unicorn":
        from popek.emulators.x86_64.unicorn import UNICORN

        emulator = UNICORN
    return _compared(
        lambda show: difftest(cases, seed, list(forms) or None, show, against=emulator), cases, json
    )


def _declared(machine: str, tests: Mapping[str, str]) -> Callable[..., int]:
    """The command for a machine whose tests a package declares: per emulator `module:function`."""
    emulators = tuple(tests)

    def command(
        *forms: str,
        against: Emulator = emulators[0],
        cases: Cases = 2000,
        seed: Seed = 0,
        json: AsJson = False,
    ) -> int:
        """Run one instruction from random states, on the model and on an emulator.

        Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no emulator.

        Args:
            forms: instruction forms or mnemonics; all by default.
        """
        assert_cases(cases)
        assert_one_of("--against", against, emulators)
        module, function = tests[against].split(":")
        difftest = getattr(importlib.import_module(module), function)
        return _compared(lambda show: difftest(cases, seed, list(forms) or None, show), cases, json)

    command.__name__ = machine
    return command


for _machine, _tests in declared_difftests().items():
    app.command(_declared(_machine, _tests), name=_machine)


def _assert_possible(against: str, cases: int) -> None:
    assert_cases(cases)
    assert_one_of("--against", against, ("bochs", "unicorn"))


def _compared(
    difftest: Callable[[Callable[[int], None] | None], DifftestReport[Any]], cases: int, json: bool
) -> int:
    """Compare, print what was found, and give the exit code."""
    from popek.report import difftest as report

    found = instructions_on_emulator(difftest, cases)
    return print_found(found, "popek/difftest/1", report.instructions, json)
