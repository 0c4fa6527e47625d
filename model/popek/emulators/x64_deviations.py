"""Where Bochs deviates from the manual on x86-64, and what the manual leaves to the processor.

The list with its evidence is ``popek_specs/x86_64/bochs-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains.  A difference that no entry explains is a bug of the model.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Final

import attrs

from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.ia32_deviations import Deviation
from popek.emulators.x64_cases import Case
from popek.emulators.x64_expectation import Expectation
from popek.emulators.x64_step import ARENA_BYTES, StepCase, StepResult, initial_memory

_DB, _SS, _GP, _PF, _AC = 1, 12, 13, 14, 17
_BT, _LOW = 1 << 15, 0xFFFFFFFF
_FMASK, _TSC_AUX = 0xC0000084, 0xC0000103


@attrs.frozen
class Found:
    """A difference, as the recognisers see it.

    Attributes:
        case, step: what was run.
        expected: what the model says.
        result: what the emulator did.
        differing: the names of the components that differ, ``memory`` or ``outcome``.
    """

    case: Case
    step: StepCase
    expected: Expectation
    result: StepResult
    differing: frozenset[str]

    @property
    def vectors(self) -> tuple[int | None, int | None]:
        """The vector on the model and on the emulator, None where it did not trap."""
        return self.expected.vector, self.result.vector

    @property
    def returns_to(self) -> int | None:
        """The level that IRET's frame names, where it can be read."""
        size = {"IRET": 2, "IRETD": 4, "IRETQ": 8}.get(self.case.form)
        where = self.step.state["rsp"] + (size or 0)
        if size is None or where >= ARENA_BYTES:
            return None
        return initial_memory(self.step)[where] & 3

    def bits(self, name: str) -> int:
        """The bits of one component that differ, where nothing else does; else 0."""
        if self.differing != {name}:
            return 0
        return self.expected.state[name] ^ self.result.state[name]


def _general_detect_first(found: Found) -> bool:
    return "DR" in found.case.form and found.case.cpl > 0 and found.vectors == (_GP, _DB)


def _general_detect_clears_bt(found: Found) -> bool:
    return found.vectors == (_DB, _DB) and found.bits("dr6") & ~0xF == _BT


def _dr7_bit_11(found: Found) -> bool:
    return found.case.form.startswith("MOV DR") and found.bits("dr7") == 1 << 11


def _narrow_iret(found: Found) -> bool:
    narrow = found.case.long and found.case.form in ("IRET", "IRETD")
    return narrow and found.returns_to == found.case.cpl


def _clears_upper_half(found: Found) -> bool:
    left = found.case.long and not found.result.state.get("cs.rights", 1 << 13) >> 13 & 1
    return left and found.bits("rsp") != 0 and found.bits("rsp") & 0xFFFFFFFF == 0


def _sysret_keeps_ss(found: Found) -> bool:
    only = found.differing <= {"ss.limit", "ss.rights", "rsp"}
    if not only or not found.case.form.startswith("SYSRET"):
        return False
    kept = found.result.state["ss.limit"] == found.step.state["ss.limit"]
    same = found.expected.state["ss.rights"] ^ found.result.state["ss.rights"]
    return kept and same & 0xFF == 0 and (found.expected.state["rsp"] ^ found.result.state["rsp"]) & _LOW == 0


def _cmpxchg_keeps_upper_half(found: Found) -> bool:
    name = GPR_NAMES[found.case.operands.get("operand r32", 0)]
    return found.case.form == "CMPXCHG r32, r32" and found.bits(name) != 0 and found.bits(name) & _LOW == 0


def _stores_before(found: Found) -> bool:
    traps = found.expected.kind == "trap" and found.vectors[0] == found.vectors[1]
    return traps and found.differing == {"memory"}


def _near_call_pushes_first(found: Found) -> bool:
    near = found.case.form in ("CALL rel32", "CALL r64")
    return near and found.vectors[0] == _GP and found.vectors[1] in (_SS, _PF, _AC)


def _pop_reads_a_word(found: Found) -> bool:
    pops = found.case.form in ("POP FS", "POP GS", "POP DS", "POP ES", "POP SS")
    return pops and found.expected.storage and found.vectors[0] != found.vectors[1]


def _supervisor_push(found: Found) -> bool:
    pushes = found.case.form.startswith(("INT", "CALL m", "CALL p")) and found.case.cpl == 3
    faults = (found.vectors[0], found.expected.error_code) in ((_PF, 7), (_AC, 0))
    return pushes and faults and (found.vectors[1], found.result.error_code) != (_PF, 7)


def _wraps(found: Found) -> bool:
    absent = found.vectors[1] == _PF and (found.result.error_code or 0) & 1 == 0
    return not found.case.long and absent and found.expected.storage and found.vectors[0] in (_GP, _SS)


def _parts_in_order(found: Found) -> bool:
    absent = found.vectors[1] == _PF and (found.result.error_code or 0) & 1 == 0
    return absent and found.expected.storage and found.vectors[0] in (_GP, _SS)


def _null_stack_of_another_level(found: Found) -> bool:
    returns = "IRET" in found.case.form or "RETF" in found.case.form
    same = (found.vectors[0], found.expected.error_code) == (_GP, 0)
    return returns and same and found.result.kind == "next" and found.result.state["ss.selector"] < 4


def _reserved_half_of_msr(found: Found) -> bool:
    number, high = found.step.state["rcx"] & _LOW, found.step.state["rdx"] & _LOW
    narrow = number in (_FMASK, _TSC_AUX) and high != 0
    return found.case.form == "WRMSR" and narrow and found.vectors == (_GP, None)


def _names_the_old_stack(found: Found) -> bool:
    old = found.step.state["ss.selector"] & 0xFFFC
    same = found.vectors == (_SS, _SS) and found.expected.error_code in (0, 1)
    return (
        same
        and (found.result.error_code or 0) & 0xFFFC == old
        and found.case.form.startswith(("INT", "CALL"))
    )


def _alignment_order(found: Found) -> bool:
    one, other = found.vectors
    return found.expected.storage and _AC in (one, other) and {one, other} <= {_AC, _GP, _SS, _PF}


def _far_call_looks_at_ss(found: Found) -> bool:
    if not (found.case.long and found.case.form.startswith("CALL m")):
        return False
    null = found.step.state["ss.rights"] >> 16 == 1
    # Beyond 4 GiB only ESP is looked at.
    narrow = found.step.state["rsp"] > _LOW and not found.result.state.get("cs.rights", 0) >> 13 & 1
    return (null and found.result.vector == _SS) or narrow


def _invpcid_reads_first(found: Found) -> bool:
    kind = found.step.state[GPR_NAMES[found.case.operands.get("operand r64", 0)]]
    wide = kind if found.case.long else kind & _LOW
    return found.case.form.startswith("INVPCID") and wide > 3 and found.vectors[0] == _GP


_RECOGNISED: Final[Mapping[str, Callable[[Found], bool]]] = {
    "general-detect-before-cpl": _general_detect_first,
    "general-detect-clears-bt": _general_detect_clears_bt,
    "dr7-bit-11": _dr7_bit_11,
    "iret-of-a-narrow-frame-keeps-the-stack": _narrow_iret,
    "sysret-clears-the-upper-half-of-rsp": _clears_upper_half,
    "sysret-keeps-hidden-parts-of-ss": _sysret_keeps_ss,
    "cmpxchg-leaves-the-upper-half": _cmpxchg_keeps_upper_half,
    "stores-before-a-fault": _stores_before,
    "near-call-pushes-first": _near_call_pushes_first,
    "segment-pop-reads-a-word": _pop_reads_a_word,
    "conforming-handler-is-pushed-for-as-supervisor": _supervisor_push,
    "alignment-check-order": _alignment_order,
    "access-wraps-at-4-gib": _wraps,
    "parts-of-an-operand-in-order": _parts_in_order,
    "null-stack-of-another-level": _null_stack_of_another_level,
    "reserved-half-of-an-msr": _reserved_half_of_msr,
    "inner-stack-fault-names-the-old-stack": _names_the_old_stack,
    "far-call-to-compatibility-mode-looks-at-ss": _far_call_looks_at_ss,
    "invpcid-reads-its-descriptor-first": _invpcid_reads_first,
}


@functools.cache
def deviations(emulator: str = "bochs") -> Mapping[str, Deviation]:
    """The list of an emulator, by name."""
    source = resources.files("popek_specs.x86_64").joinpath(f"{emulator}-deviations.toml")
    entries = tomllib.loads(source.read_text(encoding="utf-8"))["deviation"]
    return {name: Deviation(name, entry["summary"], entry["evidence"]) for name, entry in entries.items()}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(
    case: Case, step: StepCase, expected: Expectation, result: StepResult, differing: frozenset[str]
) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    found = Found(case, step, expected, result, differing)
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
