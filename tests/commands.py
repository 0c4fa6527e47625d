"""Running commands: in this process, which is quick, or in one of their own, as a shell does."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from popek.cli import main

RUN = "import sys; from popek.cli import main; sys.argv[0] = 'popek'; main()"


def popek(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this process; warnings are errors, as in every test."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with (
            patch.object(sys, "argv", ["popek", *arguments]),
            chdir(folder or Path.cwd()),
            redirect_stdout(out),
            redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            # It has them: those of `sys.argv`.
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    return subprocess.CompletedProcess(["popek", *arguments], code, out.getvalue(), err.getvalue())


def in_a_process(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would, warnings being errors."""
    command = [sys.executable, "-W", "error", "-c", RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=300)
