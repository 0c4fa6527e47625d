"""What another setting saves: forms that need no rewriting under it, and those that need it because of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from .rewriting import Rewriting, rewriting
from .subject import Subject


@attrs.frozen
class Saving:
    """The least set under another setting, beside the one that was found.

    Attributes:
        setting: as NAME=VALUE.
        asked: the forms whose answers may depend on it; all others are as before.
        saved: members that may run directly under it.
        added: forms that may run directly without it.
        open: forms among those asked of which nothing is known under it.
    """

    setting: str
    asked: tuple[str, ...]
    saved: tuple[str, ...]
    added: tuple[str, ...]
    open: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """For `popek/rewriting/1`."""
        found: dict[str, object] = {
            name: list(getattr(self, name)) for name in ("asked", "saved", "added", "open")
        }
        return {"setting": self.setting} | found


def saving(
    subject: Subject[Any],
    found: Rewriting,
    setting: str,
    value: int,
    *,
    promise: str = "both",
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Saving:
    """Ask again, with another value of a setting, about the forms that it concerns.

    Args:
        found: the least set with the value that the subject has.

    Raises:
        NothingToAskError: with this value the technique has no guest.
    """
    settings = {**subject.configuration.settings, setting: value}
    changed = attrs.evolve(subject, configuration=attrs.evolve(subject.configuration, settings=settings))
    forms = [one.form for one in found.forms if setting in one.concerns]
    then = rewriting(changed, promise=promise, forms=forms, jobs=jobs, progress=progress) if forms else None
    members, direct = {one.form for one in found.members}, {one.form for one in found.direct}
    return Saving(
        f"{setting}={value}",
        tuple(forms),
        tuple(one.form for one in then.direct if one.form in members) if then else (),
        tuple(one.form for one in then.members if one.form in direct) if then else (),
        tuple(one.form for one in then.open) if then else (),
    )
