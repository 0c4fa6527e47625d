"""What was kept for the next time: a line that says so, and the commands for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App

from .errors import UserError
from .options import AsJson
from .output import console, print_json

if TYPE_CHECKING:
    from popek.checks.survey_row import SurveyRow


def told_of_the_store(rows: Sequence[SurveyRow]) -> None:
    """Say on standard error how many rows were found earlier; and let go of the store."""
    from popek.keeping.store import store

    kept = store()
    if kept is not None:
        kept.close()
    known = sum(row.from_store for row in rows)
    if known:
        print(f"{known} of {len(rows)} forms were asked about earlier; --no-cache asks anew", file=sys.stderr)


app = App(name="cache", help="What was found and is kept for the next time.")


@app.command
def info(*, json: AsJson = False) -> int:
    """Say where it lies, and how much there is."""
    from popek.keeping.store import LARGEST, StoreSize, store

    kept = store()
    size = StoreSize(None) if kept is None else kept.size()
    if json:
        print_json(size.to_json())
    elif size.file is None:
        console().print("nothing is kept: POPEK_CACHE is off")
    else:
        most = f"{LARGEST / 1e6:.0f}"
        console().print(
            f"{size.values} entries, {size.octets / 1e6:.1f} of at most {most} MB, in {size.file}"
        )
    return 0


@app.command
def clear(*, json: AsJson = False) -> int:
    """Remove it."""
    from popek.keeping.store import StoreSize, store

    kept = store()
    try:
        gone = StoreSize(None) if kept is None else kept.clear()
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    if json:
        print_json(gone.to_json() | {"cleared": True})
    else:
        console().print(f"{gone.values} entries removed, {gone.octets / 1e6:.1f} MB")
    return 0


__all__ = ["app", "told_of_the_store"]
