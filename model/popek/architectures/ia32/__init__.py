"""IA-32: real-address, virtual-8086 and 32-bit protected mode."""

from popek.architectures.x86.sweep import code_of
from popek.kernel.code import MachineCode

from .machine import build
from .paged import build as _paged

MACHINES = {"ia32": build}
VARIANTS = {"ia32-paged": _paged}


def _code() -> MachineCode:
    from .decoding import decode

    return code_of("ia32", (32, 16), ("EM_386",), ("IMAGE_FILE_MACHINE_I386",), decode)


CODE = {"ia32": _code}
