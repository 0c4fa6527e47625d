"""`--certify`: certificates for the answers of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.checks.certification import Certifier

Certify = Annotated[
    Path | None,
    Parameter(
        name="--certify",
        help="Certify each answer that rests on there being no assignment. The folder keeps the proofs; what it has "
        "already, as from popek verify --out, is not done again.",
    ),
]


@contextmanager
def certified(folder: Path | None) -> Iterator[Certifier | None]:
    """What certifies, if anything; it uses the folder.

    Raises:
        UserError: the folder cannot be used, or what is needed is not installed.
    """
    if folder is None:
        yield None
        return
    from popek.checks.certification import Certifier
    from popek.checks.certified_files import Files, FolderError

    assert_possible()
    files = Files(folder)
    try:
        files.begin()
        yield Certifier(files=files)
    except FolderError as error:
        raise UserError(f"--certify {error}") from None


def assert_possible(otherwise: str = "") -> None:
    """Refuse to certify where the SAT solver is not installed.

    Raises:
        UserError: it is not.
    """
    from popek.solving import certificate

    if not certificate.available():
        raise UserError(f"certificates need the package python-sat: install 'popek[verify]'{otherwise}")


__all__ = ["Certify", "assert_possible", "certified"]
