"""`popek difftest non-root`: instructions of a guest on Bochs' VMX, compared with non-root operation of the model."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .difftest_running import compare_guests
from .options import AsJson, Cases, Seed, assert_one_of


def difftest_non_root(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs, the only emulator with VMX.")] = "bochs",
    cases: Cases = 2000,
    seed: Seed = 0,
    instruction: Annotated[tuple[str, ...], Parameter(help="The same as a form.")] = (),
    guest: str = "ia32",
    json: AsJson = False,
) -> int:
    """Run one instruction of a guest under random controls: exit reason, qualification and information, or the state.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.

    Args:
        forms: instruction forms or mnemonics; all by default.
        guest: ia32, or x86-64 for 64-bit mode and compatibility mode.
    """
    from popek.emulators.non_root.compare import GUESTS
    from popek.emulators.non_root.long_compare import LONG_GUESTS

    assert_one_of("--guest", guest, ("ia32", "x86-64"))
    guests = LONG_GUESTS if guest == "x86-64" else GUESTS
    names = (*forms, *instruction)
    return compare_guests(guests, names, against, cases, seed, "popek/vtx-difftest/1", json)
