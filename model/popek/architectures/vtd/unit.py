"""What a remapping unit of VT-d is set up with: registers, capabilities, and the tables' entries by their fields.

Names are those of Intel's "Virtualization Technology for Directed I/O" architecture specification; legacy mode.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from popek.kernel.state import Role, State, word
from popek.kernel.words import Word

SOURCE = "Intel VT-d architecture specification"

Read = Callable[[Word], Word]
"""The 64 bits at a host-physical address of 64 bits that is a multiple of 8."""

READ, WRITE = False, True


@attrs.frozen
class RemappingCapabilities:
    """What a unit can do.

    Attributes:
        host_width: HAW, bits of a host-physical address.
        guest_width: MGAW, bits of an address that a device may send.
        levels: the levels of second-stage tables that SAGAW offers.
        large: large pages at level 2 (2 MB) and 3 (1 GB), as SLLPS offers.
        pass_through: ECAP.PT.
        device_tlb: ECAP.DT: translation type 1 is defined.
        snoop: ECAP.SC: bit 11 of a leaf is defined.
        posting: CAP.PI.
    """

    host_width: int = 39
    guest_width: int = 39
    levels: tuple[int, ...] = (3,)
    large: tuple[int, ...] = (2, 3)
    pass_through: bool = True
    device_tlb: bool = False
    snoop: bool = False
    posting: bool = False


class Unit(State):
    """The registers, and what the monitor remembers of the device."""

    root_table = word(64, role=Role.RESOURCE)  # RTADDR_REG, in legacy mode
    translation = word(1, role=Role.RESOURCE)  # GSTS.TES
    interrupt_remapping = word(1, role=Role.RESOURCE)  # GSTS.IRES
    compatibility = word(1, role=Role.RESOURCE)  # GSTS.CFIS: compatibility-format requests pass
    interrupt_table = word(64, role=Role.RESOURCE)  # IRTA_REG: address, EIME in bit 11, size in bits 3:0
    # A translation that the unit may still hold from before the tables were changed: any of them.
    cached = word(1, role=Role.HIDDEN)
    cached_page = word(52, role=Role.HIDDEN)  # of the device's address
    cached_frame = word(52, role=Role.HIDDEN)
    cached_fault = word(1, role=Role.HIDDEN)  # caching mode: that there was none
    # The fabric, and what the monitor set up.
    requester = word(16, role=Role.RESOURCE)  # the device's source-id
    source_validation = word(1, role=Role.RESOURCE)  # the fabric lets through no other source-id
    redirects = word(1, role=Role.RESOURCE)  # the fabric sends requests among its devices to the unit (ACS)
    handle = word(16, role=Role.RESOURCE)  # of the device's entry in the interrupt table
    vector = word(8, role=Role.RESOURCE)  # what the monitor expects from it
    destination = word(32, role=Role.RESOURCE)


def frame(entry: Word, host_width: int) -> Word:
    """The host-physical page address in an entry, as 64 bits."""
    return (entry & (((1 << host_width) - 1) & ~0xFFF)).resize(64)


def beyond(entry: Word, host_width: int, top: int = 64) -> Word:
    """An address bit above the host's width is set (width 1)."""
    mask = ((1 << top) - 1) & ~((1 << host_width) - 1)
    return (entry & mask) != 0
