"""What a rate is measured against, in the same run: figures of two machines, or of two loads, cannot be compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from popek.architectures.vtx.baselines import MODES, baseline
from popek.architectures.vtx.capabilities import Capabilities

ADD = b"\x01\xc0"  # add eax, eax
CODE = 0x1000
STARTS = 5


def cpu() -> float:
    """Seconds of processor time that this process and those it waited for have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def unicorn_steps() -> Callable[[], int]:
    """A turn of one-step calls of Unicorn, an ADD each.

    Raises:
        UnicornError: Unicorn is missing.
    """
    from popek.emulators.x86.unicorn import UnicornProcessor

    processor = UnicornProcessor(32, ("eax",))
    processor.start(0x10000, 0x10000)
    engine = processor.engine
    engine.mem_write(CODE, ADD)

    def turn() -> int:
        for _ in range(100):
            engine.emu_start(CODE, CODE + len(ADD), 0, 1)
        return 100

    return turn


def python_steps() -> Callable[[], int]:
    """A turn of an interpreter as one would write it in Python: registers in a list, a function per operation."""
    registers = [0] * 8
    flags = {"cf": 0, "zf": 0, "sf": 0, "of": 0}

    def add(to: int, by: int) -> None:
        a, b = registers[to], registers[by]
        total = a + b
        result = registers[to] = total & 0xFFFFFFFF
        flags["cf"], flags["zf"], flags["sf"] = total >> 32, int(result == 0), result >> 31
        flags["of"] = (a ^ result) & (b ^ result) >> 31

    operations = {0x01: add}
    code = [(0x01, 0, 0)] * 100

    def turn() -> int:
        for operation, to, by in code:
            operations[operation](to, by)
        return len(code)

    return turn


def starts(capabilities: Capabilities) -> Iterator[tuple[str, str, Callable[[], int]]]:
    """Names, what is started, and a turn: the interpreter that does nothing, and commands of popek."""
    fields = {name: hex(value) for name, value in baseline(MODES[-1], capabilities).fields.items()}
    dump = Path(tempfile.mkdtemp(prefix="popek-")) / "dump.json"
    dump.write_text(json.dumps({"fields": fields}), encoding="ascii")
    run = "import sys; from popek.cli import main; sys.argv = ['popek', *sys.argv[1:]]; main()"
    commands: Mapping[str, tuple[str, ...]] = {
        "start python": ("-c", "pass"),
        "start --help": ("-c", run, "--help"),
        "start --version": ("-c", run, "--version"),
        "start vmcs check": ("-c", run, "vmcs", "check", str(dump)),
    }
    try:
        for name, words in commands.items():
            what = name.removeprefix("start ")
            yield name, "the interpreter alone" if what == "python" else f"popek {what}", _started(words)
    finally:
        dump.unlink()
        dump.parent.rmdir()


def _started(words: tuple[str, ...]) -> Callable[[], int]:
    def turn() -> int:
        subprocess.run([sys.executable, *words], capture_output=True, check=False)
        return 1

    return turn


__all__ = ["cpu", "python_steps", "starts", "unicorn_steps"]
