"""The programs that popek or its tests start: the package that has each, and a start that leaves nothing running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

PACKAGES: Final[Mapping[str, str]] = {
    "bochs": "bochs",
    "chromium": "chromium",
    "coqc": "coq",
    "coqchk": "coq",
    "dtc": "device-tree-compiler",
    "hercules": "hercules",
    "libatomic.so.1": "libatomic1",
    "nasm": "nasm",
    "objdump": "binutils",
    "pdp10": "simh",
    "pdp11": "simh",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""The Debian package of each command, and of a library that a Python package needs beside itself."""

# The emulator takes the shell's place, so its number is the group's.  Beside it a shell waits until nobody holds the
# other end of the pipe any more, whatever became of us, and ends the group: the emulator, its children, itself.
_GUARDED: Final = (
    'exec 3<&0 </dev/null; { read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 & exec 3<&-; exec "$@"'
)


def find(command: str) -> Path | None:
    """The executable of the search path, if there is one."""
    found = shutil.which(command)
    return Path(found) if found else None


def not_found(command: str) -> str:
    """One line that says what is missing and how to get it."""
    package = PACKAGES.get(command)
    return f"{command} was not found" + (f": apt-get install {package}" if package else " on PATH")


@contextmanager
def started(
    command: Sequence[str | Path], folder: Path, output: IO[bytes], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, which ends with the block and with this process.

    Args:
        command: the program and its arguments; it reads nothing from its standard input.
        folder: where it runs.
        output: takes what it prints, errors too.
        environment: variables beside those of this process.
    """
    reader, writer = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDED, "sh", *map(str, command)],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=reader,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(reader)
        try:
            yield process
        finally:
            # Bochs does not reliably end on SIGTERM. The group is ours alone, and the guard keeps it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        os.close(writer)
