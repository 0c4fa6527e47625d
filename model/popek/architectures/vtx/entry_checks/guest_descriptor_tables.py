"""Guest descriptor-table registers (E.3.1.3)."""

from __future__ import annotations

from popek.architectures.vtx.view import canonical

from .host_state import CANONICAL
from .registry import INTEL64, CheckGroup, checker, refuses

check = checker(
    CheckGroup("guest-descriptor-tables", "Guest descriptor-table registers", refuses(0), stage=2)
)

check(
    "GUEST-DT-01",
    (INTEL64,),
    lambda v: canonical(v, v.GUEST_GDTR_BASE),
    CANONICAL.format("GUEST_GDTR_BASE"),
)
check(
    "GUEST-DT-02",
    (INTEL64,),
    lambda v: canonical(v, v.GUEST_IDTR_BASE),
    CANONICAL.format("GUEST_IDTR_BASE"),
)
check(
    "GUEST-DT-03",
    (),
    lambda v: v.GUEST_GDTR_LIMIT >> 16 == 0,
    "{GUEST_GDTR_LIMIT} must have bits 31:16 clear",
)
check(
    "GUEST-DT-04",
    (),
    lambda v: v.GUEST_IDTR_LIMIT >> 16 == 0,
    "{GUEST_IDTR_LIMIT} must have bits 31:16 clear",
)
