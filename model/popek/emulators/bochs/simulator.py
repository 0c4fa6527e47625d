"""Run a bare-metal ROM on the Bochs emulator and collect what it reports.

The guest is a 64 KiB ROM that takes the place of the BIOS. It reads its input from an ATA disk and writes
its answer, byte by byte, to the first parallel port, which Bochs copies to a file. It ends the run by
writing the eight letters ``Shutdown`` to port 8900H. Nothing else is needed: no display, no terminal, no
BIOS, no network.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from popek.emulators import programs

ROM_BYTES = 0x10000
"""Size of a ROM image in bytes; it ends at the top of the 32-bit address space."""

_SECTOR = 512
_HEADS = 16
_SECTORS_PER_TRACK = 63
_CYLINDER = _SECTOR * _HEADS * _SECTORS_PER_TRACK
_COMPLAINT = re.compile(r"^\d+e\[CPU0 *\] (.*)$", re.MULTILINE)
_PATIENCE = 20  # how much longer than its processor time a silence may take
_START = 20  # seconds that Bochs may take to read its options
_SILENCE = (
    "waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy"  # its ALSA driver dies where there is no sound card
)
_POLL = 0.05  # seconds between two looks at a running guest

DISPLAYS: Final = ("term", "nogui")
"""Display libraries that need no window system and open no network port, as `rfb` does; the first is preferred."""

# Bochs parses its options from a file; file names in it are relative, so that no quoting is needed.
_CONFIGURATION = """\
cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={memory}
romimage: file=rom.bin, address=0xffff0000, options=none
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path=disk.img, mode=flat, cylinders={cylinders}, heads={heads}, spt={spt}
boot: disk
parport1: enabled=1, file=report.bin
display_library: {display}
sound: {silence}
clock: sync=none, time0=1
log: bochs.log
panic: action=fatal
error: action={errors}
info: action=ignore
debug: action=ignore
"""


class BochsError(Exception):
    """Bochs or nasm is missing, or refused its input."""


class BochsInterrupted(BochsError):  # noqa: N818 - not always an error of the caller
    """The guest did not end its run by itself; `partial` holds the bytes it had reported."""

    def __init__(self, message: str, partial: bytes) -> None:
        """Keep the partial report beside the message."""
        super().__init__(message)
        self.partial = partial


class BochsTimeout(BochsInterrupted):
    """The guest was still running when its time was over, and was killed."""


class BochsCrash(BochsInterrupted):
    """The guest stopped otherwise: a triple fault, or a panic of the emulator."""


def missing(*, assembling: bool = False) -> str | None:
    """One line that says what is missing to run ROMs, `assembling` them too, and the Debian package that has it."""
    bochs = programs.find("bochs")
    if bochs is None:
        return programs.not_found("bochs")
    if _display(str(bochs)) is None:
        return f"bochs has none of the display libraries {', '.join(DISPLAYS)}: apt-get install bochs-term"
    if assembling and programs.find("nasm") is None:
        return programs.not_found("nasm")
    return None


_assembled: dict[tuple[str, tuple[tuple[str, int], ...]], bytes] = {}


def assemble(source: Path, *, defines: Mapping[str, int] | None = None) -> bytes:
    """Assemble a file into a flat binary; a second call with the same text is free.

    `defines` are passed as preprocessor symbols; what the file includes is looked for beside it and
    beside this module. Raises `BochsError` with nasm's own words if the source is wrong, or if nasm is missing.
    """
    symbols = tuple(sorted((defines or {}).items()))
    key = (source.read_text(encoding="utf-8"), symbols)
    if key not in _assembled:
        nasm = programs.find("nasm")
        if nasm is None:
            raise BochsError(programs.not_found("nasm"))
        with tempfile.TemporaryDirectory(prefix="popek-nasm-") as folder:
            target = Path(folder) / "out.bin"
            options = [f"-D{name}={value}" for name, value in symbols]
            places = [f"-I{place}{os.sep}" for place in (source.parent, Path(__file__).parent)]
            command = [str(nasm), "-f", "bin", *places, "-o", str(target), *options, str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BochsError(f"nasm refused {source.name}: {done.stderr.strip()}")
            _assembled[key] = target.read_bytes()
    return _assembled[key]


def run_rom(
    rom: bytes,
    disk: bytes,
    *,
    model: str = "tigerlake",
    timeout: float = 60,
    stall: float | None = None,
    memory_mib: int = 32,
    complaints: Callable[[str], None] | None = None,
) -> bytes:
    """Boot `rom` with `disk` as the first ATA disk and return what the guest reported.

    `rom` is exactly 64 KiB and lies at FFFF0000H, its copy at F0000H; `disk` is padded with zeros to whole
    cylinders. `model` is one of the names `bochs --help cpu` lists. `timeout` is in seconds of real time;
    with `stall` the run also ends when the guest has reported nothing for that many seconds of the
    emulator's processor time. `memory_mib` is the guest's memory in MiB. `complaints` is called after the
    run, however it ended, with each line that the emulated processor logged as an error: Bochs says there
    why it refused something.

    Raises `BochsTimeout` or `BochsCrash`, both with the partial report, if the guest did not write
    ``Shutdown`` to port 8900H; `BochsError` if Bochs is missing or refuses to start.
    """
    if len(rom) != ROM_BYTES:
        raise BochsError(f"a ROM has {ROM_BYTES} bytes, this one has {len(rom)}")
    if line := missing():
        raise BochsError(line)
    bochs = str(programs.find("bochs"))
    cylinders = max(1, -(-len(disk) // _CYLINDER))
    with tempfile.TemporaryDirectory(prefix="popek-bochs-") as name:
        folder = Path(name)
        (folder / "rom.bin").write_bytes(rom)
        with (folder / "disk.img").open("wb") as image:
            image.write(disk)
            image.truncate(cylinders * _CYLINDER)
        (folder / "bochsrc").write_text(
            _CONFIGURATION.format(
                model=model,
                memory=memory_mib,
                cylinders=cylinders,
                heads=_HEADS,
                spt=_SECTORS_PER_TRACK,
                display=_display(bochs),
                silence=_SILENCE,
                errors="ignore" if complaints is None else "report",
            ),
            encoding="ascii",
        )
        command = [bochs, "-q", "-f", "bochsrc"]
        if _has_debugger(bochs):
            # Such a build stops at the first instruction and waits for commands.
            (folder / "debugger").write_text("c\nquit\n", encoding="ascii")
            command += ["-rc", "debugger"]
        silence = _run(command, folder, timeout, stall)
        report = _read(folder / "report.bin")
        log = _read(folder / "bochs.log").decode("latin-1")
        if not log:
            log = _read(folder / "output").decode("latin-1")
    if complaints is not None:
        for line in _COMPLAINT.findall(log):
            complaints(line)
    if silence is not None:
        raise BochsTimeout(silence, report)
    if "shutdown requested" not in log.lower():
        raise BochsCrash(f"the guest did not end properly: {_last_words(log)}", report)
    return report


@functools.cache
def _display(bochs: str) -> str | None:
    """The display library to use, if this Bochs has one of `DISPLAYS`.

    Bochs reads its options up to the first that it does not understand: it is given one after the library's name.
    """
    for display in DISPLAYS:
        with tempfile.TemporaryDirectory(prefix="popek-bochs-") as name:
            folder = Path(name)
            (folder / "bochsrc").write_text(f"display_library: {display}\npopek\n", encoding="ascii")
            with (folder / "output").open("wb") as output:
                command = [bochs, "-q", "-f", "bochsrc"]
                start = programs.started(command, folder, output, TERM="xterm", HOME=name)
                with start as process, suppress(subprocess.TimeoutExpired):
                    process.wait(_START)
            said = _read(folder / "output").decode("latin-1")
        if f"display library '{display}'" not in said:
            return display
    return None


@functools.cache
def _has_debugger(bochs: str) -> bool:
    """Tell whether this Bochs was built with its internal debugger; only then it knows `-rc`."""
    with tempfile.TemporaryDirectory(prefix="popek-bochs-") as folder:
        shown = subprocess.run(
            [bochs, "--help"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    return b"-rc filename" in shown.stdout + shown.stderr


def _run(command: list[str], folder: Path, timeout: float, stall: float | None) -> str | None:
    """Run a command in `folder`; tell why it had to be killed, if it had."""
    report = folder / "report.bin"
    started = heard = time.monotonic()
    size = 0
    worked_then = 0.0
    with (
        (folder / "output").open("wb") as output,
        programs.started(command, folder, output, TERM="xterm", HOME=str(folder)) as process,
    ):
        while True:
            try:
                process.wait(_POLL)
                return None
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            known = report.stat().st_size if report.exists() else 0
            worked = _processor_time(process.pid)
            if known != size:
                size, heard, worked_then = known, now, worked
            if now - started > timeout:
                return f"the guest was still running after {timeout:g} s"
            # On a busy machine much time passes without any work being done: look at the work first.
            if stall is not None and (worked - worked_then > stall or now - heard > _PATIENCE * stall):
                return f"the guest reported nothing for {stall:g} s"


def _processor_time(pid: int) -> float:
    """Return the seconds of processor time a process has used, or 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _last_words(log: str) -> str:
    """Return the line of a Bochs log that says why it stopped."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if "PANIC" in line or "p[" in line]
    if telling:
        return telling[-1]
    return lines[-1] if lines else "no log"


def fitting(parts: Sequence[bytes], first: int, room: int, most: int) -> int:
    """The end of the run of parts from `first` on, at most so many, that has room for so many bytes."""
    last = first
    while last < len(parts) and last - first < most and len(parts[last]) <= room:
        room -= len(parts[last])
        last += 1
    return last
