"""A step of a guest, as every assistance draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class AssistedCase:
    """An instruction in a guest's state, under a VMM's controls.

    Attributes:
        guest: the instruction and the state, as changes of the bare harness's plain state.
        controls: fields of the control structure, by id.
    """

    guest: Any
    controls: Mapping[str, int] = attrs.field(factory=dict, kw_only=True)

    @property
    def form(self) -> str:
        """The instruction's form."""
        form: str = self.guest.form
        return form

    @property
    def cpl(self) -> int:
        """The current privilege level."""
        cpl: int = self.guest.cpl
        return cpl

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.form,
            "cpl": self.cpl,
            "controls": {name: hex(value) for name, value in self.controls.items()},
            "registers": {name: hex(value) for name, value in self.guest.registers.items()},
        }


@attrs.frozen
class ProtectedCase(AssistedCase):
    """A step of a 32-bit guest.

    Attributes:
        paging: with paging that maps the arena onto itself.
        barred: pages of the arena by number, and the bits that their entries lack: 1 present, 2 writable, 4 user.
    """

    paging: bool = True
    barred: Mapping[int, int] = attrs.field(factory=dict, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "paging": self.paging}


def bytes_shown(places: tuple[tuple[int, bytes], ...]) -> list[list[str]]:
    """Addresses and bytes as plain data."""
    return [[hex(address), data.hex()] for address, data in places]


@attrs.frozen
class LongCase(AssistedCase):
    """A step of a guest in IA-32e mode.

    Attributes:
        relative: the memory operand is relative to RIP.
    """

    relative: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "mode": self.guest.mode}
