"""`popek explore`: the explorer on this machine, or built for any static host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from popek.machines import to_begin_with

from .errors import UserError
from .output import working


def explore(
    machine: str = to_begin_with(),
    *,
    port: Annotated[int, Parameter(help="Of this machine's loopback; 0 for one that is free.")] = 0,
    open: Annotated[bool, Parameter(help="Open it in the browser.")] = True,
    build: Annotated[
        Path | None,
        Parameter(
            help="Write the page into this folder instead, for any static host: it then runs in the browser alone."
        ),
    ] = None,
    pyodide: Annotated[
        Path | None,
        Parameter(
            help="With --build: the npm package pyodide, unpacked or as .tgz, where npm is not to fetch it."
        ),
    ] = None,
) -> int:
    """Explore a machine in the browser: flip settings, open witnesses, rewrite an instruction, paste a dump.

    Served on this machine alone, under a token without which nothing is answered; Ctrl-C ends it.

    Args:
        machine: what to begin with.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.machines import makers

    if machine not in makers():
        raise UserError(str(UnknownNameError("machine", machine, makers())))
    if pyodide is not None and build is None:
        raise UserError(f"--pyodide {pyodide}: expected only with --build")
    if build is not None:
        return _built(build, pyodide)
    return _served(machine, port, open)


def _built(folder: Path, pyodide: Path | None) -> int:
    from popek.explorer.build import build

    with working("building"):
        found = build(folder, pyodide)
    print(f"{found.page}: {found.size / 1e6:.1f} MB in {found.files} files, {found.answers} answers")
    return 0


def _served(machine: str, port: int, open: bool) -> int:
    import webbrowser

    from popek.explorer.server import LOOPBACK, Server

    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: expected a number from 0 (one that is free) to 65535")
    try:
        server = Server(port)
    except OSError as error:
        raise UserError(f"--port {port}: cannot listen on {LOOPBACK}: {error.strerror}") from None
    address = f"{server.address}#machine={machine}"
    try:
        print(f"{address}\nCtrl-C ends it.", flush=True)
        if open:
            webbrowser.open(address)
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


__all__ = ["explore"]
