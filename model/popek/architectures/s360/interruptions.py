"""Program interruptions and the supervisor-call interruption (GA22-7000, "Interruptions").

A vector's number is the interruption code.  What further a vector carries is stored by the interruption:
the translation-exception address, the monitor class and code, the SVC number, the PSW that could not be
loaded.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Fault, Vector

OPERATION: Final = Vector("operation exception", 0x01)
PRIVILEGED_OPERATION: Final = Vector("privileged-operation exception", 0x02)
EXECUTE: Final = Vector("execute exception", 0x03)
PROTECTION: Final = Vector("protection exception", 0x04)
ADDRESSING: Final = Vector("addressing exception", 0x05)
SPECIFICATION: Final = Vector("specification exception", 0x06)
DATA: Final = Vector("data exception", 0x07)
FIXED_POINT_OVERFLOW: Final = Vector("fixed-point-overflow exception", 0x08)
FIXED_POINT_DIVIDE: Final = Vector("fixed-point-divide exception", 0x09)
DECIMAL_OVERFLOW: Final = Vector("decimal-overflow exception", 0x0A)
SEGMENT_TRANSLATION: Final = Vector("segment-translation exception", 0x10, 24)
PAGE_TRANSLATION: Final = Vector("page-translation exception", 0x11, 24)
TRANSLATION_SPECIFICATION: Final = Vector("translation-specification exception", 0x12)
SPECIAL_OPERATION: Final = Vector("special-operation exception", 0x13)
MONITOR_EVENT: Final = Vector("monitor event", 0x40, 28)  # class (4 bits) and code (24 bits)
PSW_FORMAT: Final = Vector("specification exception (PSW format)", 0x06, 64)  # the PSW as loaded
SUPERVISOR_CALL: Final = Vector("supervisor-call interruption", 0x100, 8)  # the I field

PROGRAM_VECTORS: Final = (
    OPERATION, PRIVILEGED_OPERATION, EXECUTE, PROTECTION, ADDRESSING, SPECIFICATION, DATA,
    FIXED_POINT_OVERFLOW, FIXED_POINT_DIVIDE, DECIMAL_OVERFLOW,
    SEGMENT_TRANSLATION, PAGE_TRANSLATION, TRANSLATION_SPECIFICATION, SPECIAL_OPERATION, MONITOR_EVENT,
    PSW_FORMAT,
)  # fmt: skip


def exception(vector: Vector) -> Fault:
    """A program interruption that finds the instruction address updated and nothing else changed.

    Suppression, termination and completion all leave the old PSW pointing past the instruction.
    """
    return Fault(vector, keeps=True)
