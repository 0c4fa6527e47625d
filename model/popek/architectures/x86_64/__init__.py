"""x86-64: IA-32e mode, with 64-bit mode and compatibility mode."""

from popek.architectures.x86.sweep import code_of
from popek.kernel.code import MachineCode

from .machine import build
from .paged import build as _paged

MACHINES = {"x86-64": build}
VARIANTS = {"x86-64-paged": _paged}


def _code() -> MachineCode:
    from .decoding import decode

    return code_of("x86-64", (64, 32), ("EM_X86_64",), ("IMAGE_FILE_MACHINE_AMD64",), decode)


CODE = {"x86-64": _code}
