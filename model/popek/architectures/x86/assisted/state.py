"""The state of an x86 processor with an assistance."""

from __future__ import annotations

from typing import Any, ClassVar

from ..interception import Interception
from ..state import X86


class Assisted(X86):
    """A processor that runs guests under the eyes of a VMM's controls."""

    interception: ClassVar[Interception[Any]]
    processor: ClassVar[type[X86]]
    """The processor without the assistance."""
