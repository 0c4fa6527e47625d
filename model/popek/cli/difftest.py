"""`popek difftest`: compare the models with emulators that were written by others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from popek.emulators import DeclaredGuests, declared_difftests, declared_guests, load

from .difftest_dma import difftest_dma
from .difftest_ept import difftest_ept
from .difftest_running import instructions_on_emulator, print_found
from .difftest_vm_entry import difftest_vm_entry
from .difftest_vmrun import difftest_vmrun
from .errors import UserError
from .options import ALONE, AsJson, Cases, Seed, Work, assert_cases, assert_one_of

if TYPE_CHECKING:
    from popek.emulators.differential import DifftestReport

app = App(name="difftest", help="Compare the models with emulators that were written by others.")

app.command(difftest_vm_entry, name="vm-entry")
app.command(difftest_vmrun, name="vmrun")
app.command(difftest_dma, name="dma")
app.command(difftest_ept, name="ept")

Emulator = Annotated[str, Parameter(help="The emulator.")]
Guest = Annotated[str, Parameter(help="The machine that the guest believes in; a wrong name lists them.")]


def machine_command(machine: str, tests: Mapping[str, str]) -> Callable[..., int]:
    """The command for a machine whose tests a package declares: per emulator `module:function`."""
    emulators = tuple(tests)

    def command(
        *forms: str,
        against: Emulator = emulators[0],
        cases: Cases = 2000,
        seed: Seed = 0,
        work: Work = ALONE,
        json: AsJson = False,
    ) -> int:
        """Run one instruction from random states, on the model and on an emulator.

        Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no emulator.

        Args:
            forms: instruction forms or mnemonics; by default all, or those that the emulator runs faithfully.
        """
        assert_cases(cases)
        assert_one_of("--against", against, emulators)
        place = tests[against]
        difftest = load(place)
        # Those that cut their cases into pieces can be found again by other processes.
        how = {"found_as": place, "jobs": work.jobs} if hasattr(difftest, "tallying") else {}
        if not how and work != ALONE:
            raise UserError(f"--jobs, --engine and --shard: popek difftest {machine} takes one process")
        with work.begun():
            return _compared(
                lambda show: difftest(cases, seed, list(forms) or None, show, **how), cases, json
            )

    command.__name__ = machine
    return command


for _machine, _tests in declared_difftests().items():
    app.command(machine_command(_machine, _tests), name=_machine)


def guests_command(name: str, declared: DeclaredGuests) -> Callable[..., int]:
    """The command that compares guests which a package declares."""
    kinds = tuple(declared.kinds)

    def command(
        *forms: str,
        against: Emulator = "bochs",
        cases: Cases = 2000,
        seed: Seed = 0,
        instruction: Annotated[tuple[str, ...], Parameter(help="The same as a form.")] = (),
        guest: Guest = kinds[0],
        json: AsJson = False,
    ) -> int:
        assert_cases(cases)
        assert_one_of("--against", against, ("bochs",))
        assert_one_of("--guest", guest, kinds)
        from popek.emulators.guests.compare import difftest
        from popek.report import difftest as report

        names = [*forms, *instruction] or None
        found = instructions_on_emulator(
            lambda show: difftest(load(declared.kinds[guest]), cases, seed, names, show), cases
        )
        return print_found(found, declared.schema, report.guests, json)

    command.__name__ = name
    command.__doc__ = f"""{declared.does}

        Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no emulator.

        Args:
            forms: instruction forms or mnemonics; all by default.
        """
    return command


for _name, _guests in declared_guests().items():
    app.command(guests_command(_name, _guests), name=_name)


def _compared(
    difftest: Callable[[Callable[[int], None] | None], DifftestReport[Any]], cases: int, json: bool
) -> int:
    """Compare, print what was found, and give the exit code."""
    from popek.report import difftest as report

    found = instructions_on_emulator(difftest, cases)
    return print_found(found, "popek/difftest/1", report.instructions, json)
