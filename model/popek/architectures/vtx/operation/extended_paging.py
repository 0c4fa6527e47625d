"""EPT as far as it protects: storage that the VMM keeps from a guest, whose references exit (SDM vol. 3C, 28.3.3).

Guest-physical addresses are linear ones here, as in the machine without VMX; of EPT there are two ranges, one that may
not be referred to and one that may not be written.  Who refers makes no difference, nor does the privilege level.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.state import Role, group, word
from popek.kernel.words import FALSE, Word, concat, ite

from ...x86.state import X86, Translation, overlaps
from ...x86_64.state import Pages
from .exits import SOFTWARE, exit_of
from .state import VmxX64

EPT_VIOLATION: Final = 48
READ, WRITE = 1 << 0, 1 << 1
READABLE, EXECUTABLE = 1 << 3, 1 << 5
LINEAR_IS_VALID, OF_THE_ADDRESS_ITSELF = 1 << 7, 1 << 8


class TranslationUnderEpt(Translation):
    """Page protection, and then EPT's."""

    def permit(self, cpu: X86, address: Word, size: int, *, write: bool) -> None:
        """As `Translation.permit`; then the exit for an EPT violation."""
        super().permit(cpu, address, size, write=write)
        check(cpu, address, size, write=write)

    def system_load(self, cpu: X86, address: Word, size: int) -> Word:
        """Bytes of a system table, which EPT may keep from the guest."""
        check(cpu, address, size, write=False)
        return super().system_load(cpu, address, size)

    def system_store(self, cpu: X86, address: Word, value: Word) -> None:
        """Store bytes of a system table."""
        check(cpu, address, value.width // 8, write=True)
        super().system_store(cpu, address, value)


class EptX64(VmxX64):
    """A 64-bit guest's processor with storage of the VMM's."""

    translation = TranslationUnderEpt(segments=False)

    ept_reserved = group(Pages)  # no access
    ept_read_only = group(Pages)  # no writing
    exit_guest_physical_address = word(64, role=Role.HIDDEN)


def check(cpu: X86, address: Word, size: int, *, write: bool) -> None:
    """Exit where a reference touches what EPT keeps.

    Raises:
        Fault: the exit, with the first byte that is kept.
    """
    assert isinstance(cpu, EptX64)
    kept = overlaps(cpu.ept_reserved, address, size)
    read_only = overlaps(cpu.ept_read_only, address, size) if write else FALSE
    if not cpu.non_root & cpu.secondary_control("enable_ept") & (kept | read_only):
        return
    pages = [cpu.ept_reserved, *([cpu.ept_read_only] if write else [])]
    first = address
    for distance in reversed(range(size)):
        place = address + distance
        touched = FALSE
        for one in pages:
            touched = touched | (place - one.base < one.size)
        first = ite(touched, place, first)
    inside = first - cpu.ept_reserved.base < cpu.ept_reserved.size
    allowed = ite(inside, Word(64, 0), Word(64, READABLE | EXECUTABLE))
    kind = (WRITE if write else READ) | LINEAR_IS_VALID | OF_THE_ADDRESS_ITSELF
    information = {"linear_address": first, "guest_physical_address": first}
    if cpu._vectoring is None or cpu._vectoring[0] not in SOFTWARE:  # else the length is not defined
        information["instruction_length"] = cpu._start.exit_instruction_length
    unblocked = cpu._unblocked if cpu._unblocked is not None else FALSE
    exit_of(
        cpu,
        EPT_VIOLATION,
        allowed | kind | concat(Word(51, 0), unblocked, Word(12, 0)),
        information,
        unblocked=cpu._unblocked,
        memory=True,
    )


__all__ = ["EPT_VIOLATION", "EptX64", "TranslationUnderEpt", "check"]
