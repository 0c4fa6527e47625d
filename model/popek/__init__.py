"""popek derives whether a machine can host a virtual machine monitor, with a solver and a witness.

    import popek

    popek.classify("ia32", UMIP=1).mnemonics("critical")

Names come when they are first used: importing popek imports no solver. Their types are in `__init__.pyi`.
"""

from importlib import import_module as _import
from time import time_ns as _time_ns

STARTED_NS = _time_ns()  # what is kept for the next time is of sources that have not changed since

__version__ = "0.1.0"

_WHERE = {
    "library.classes": ("classify", "critical_when", "explain", "rewrite"),
    "library.code": ("diagnose", "scan_file", "synthesize"),
    "library.running": ("step",),
    "library.subjects": ("list_machines", "machine"),
    "library.tables": ("rows",),
    "library.theorems": ("check", "problems", "prove", "safety"),
    "errors": ("PopekError",),
    "kernel.instruction": ("OperandKind",),
    "kernel.machine": ("Machine", "Setting"),
    "kernel.outcome": ("Fault", "Vector"),
    "kernel.state": ("Group", "Register", "Role", "State", "bit", "group", "memory", "register", "word"),
    "kernel.technique": ("Technique",),
    "kernel.words": ("Word",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(["__version__", *_HOME])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'popek' has no attribute {name!r}")
    found = globals()[name] = getattr(_import(f"popek.{_HOME[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
