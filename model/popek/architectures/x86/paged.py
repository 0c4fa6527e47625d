"""Machines of every mode with storage behind page tables, for a form of each kind of reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import attrs

from popek.kernel.machine import Machine

from .state import X86

PagedT = TypeVar("PagedT", bound=X86)


def behind_page_tables(
    plain: Machine[Any], state: type[PagedT], title: str, forms: Iterable[str], not_modelled: str
) -> Machine[PagedT]:
    """A machine without ranges of pages that are kept from the guest; the state's translation says the rest.

    Args:
        plain: the machine whose linear memory is storage.
        state: its state, with another translation.
        title: of the new machine, whose name is the plain one's and ``-paged``.
        forms: its instructions.
        not_modelled: of paging.
    """
    return attrs.evolve(
        plain,
        name=f"{plain.name}-paged",
        title=title,
        state=state,
        invariant=lambda state: (
            plain.invariant(state) & (state.reserved.size == 0) & (state.read_only.size == 0)
        ),
        relocate=None,
        techniques={},
        notes=(
            "instructions but for one of each kind of reference to storage: they differ in nothing else",
            not_modelled,
        ),
        instructions={form: plain.instructions[form] for form in forms},
    )
