"""Exit codes of #VMEXIT by number and by the names of the manual: what each is, and what usually causes it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from popek_specs.svm import rows

_REFUSED: Final = (1 << 64) - 16
"""Codes from here on say that VMRUN entered no guest; -1 is VMEXIT_INVALID."""


@attrs.frozen
class ExitCode:
    """An exit code.

    Attributes:
        number: of 64 bits, as the processor writes it.
        name: as in the manual, such as ``VMEXIT_NPF``.
        title: what it is.
        cause: what usually causes it.
        confidence: ``sure`` or ``likely``.
        source: where it comes from.
    """

    number: int
    name: str
    title: str
    cause: str
    confidence: str
    source: str

    @property
    def refused(self) -> bool:
        """Whether VMRUN entered no guest."""
        return self.number >= _REFUSED


@functools.cache
def codes() -> Mapping[int, ExitCode]:
    """All exit codes of the manual by number."""
    return {code.number: code for row in rows("exit-codes.csv") for code in _of(row)}


def _of(row: Mapping[str, str]) -> Iterator[ExitCode]:
    first, last = int(row["first"], 16), int(row["last"], 16)
    for number in range(first, last + 1):
        name = row["name"].format(number - first)
        yield ExitCode(number, name, row["title"], row["cause"], row["confidence"], row["source"])


def whole(code: int) -> int:
    """A code of 64 bits, where a text may give the low 32 bits of a negative one, or the negative number.

    >>> hex(whole(0xFFFFFFFF)), hex(whole(-2)), hex(whole(0x400))
    ('0xffffffffffffffff', '0xfffffffffffffffe', '0x400')
    """
    if code < 0 or 0xFFFF_FFF0 <= code <= 0xFFFF_FFFF:
        return code % (1 << 32) | 0xFFFF_FFFF_0000_0000
    return code


def refused(code: int) -> bool:
    """Whether an exit code says that VMRUN entered no guest."""
    return whole(code) >= _REFUSED


def named(code: int) -> ExitCode | None:
    """What is known of an exit code."""
    return codes().get(whole(code))


_HANDLER: Final = re.compile(r"^(?:SVM_EXIT|VMEXIT|SVM_VMEXIT|EXIT_REASON)_")


def find_code(subject: str) -> ExitCode | None:
    """The exit code that somebody calls so: its number, or its name with or without ``VMEXIT_``; None if there is none.

    >>> find_code("VMEXIT_NPF").number == find_code("0x400").number == find_code("npf").number
    True
    >>> find_code("-1").name, find_code("SVM_EXIT_SHUTDOWN").number
    ('VMEXIT_INVALID', 127)
    """
    wanted = subject.strip().upper().replace(" ", "_")
    try:
        return named(int(wanted.removesuffix("H"), 16 if wanted.endswith("H") else 0))
    except ValueError:
        bare = _HANDLER.sub("", wanted)
    bare = _ALSO.get(bare, bare)
    return next((code for code in codes().values() if code.name == f"VMEXIT_{bare}"), None)


_ALSO: Final = {
    "ERR": "INVALID",
    "NESTED_PAGE_FAULT": "NPF",
    "NESTED_PF": "NPF",
    "AVIC_UNACCELERATED_ACCESS": "AVIC_NOACCEL",
    "SHUTDOWN_EVENT": "SHUTDOWN",
    "EXCEPTION_PF": "EXCP14",
    "EXCEPTION_DF": "EXCP8",
    "EXCEPTION_GP": "EXCP13",
    "INT_N": "SWINT",
    "SOFTWARE_INTERRUPT": "SWINT",
    "IOIO_PROT": "IOIO",
    "MSR_PROT": "MSR",
}
"""Other names that hypervisors have."""

__all__ = ["ExitCode", "codes", "find_code", "named", "refused", "whole"]
