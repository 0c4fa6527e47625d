"""Programs that are started: named with their package where they are missing, and gone when their user is."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popek.emulators import programs
from popek.emulators.bochs import simulator as bochs

PARENT_AND_CHILD = "sleep 1000 & echo $! >child; echo $$ >parent; sleep 1000"
STARTS = f"""
import signal, time
from pathlib import Path
from popek.emulators.programs import started
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been told to ignore it
with open("output", "wb") as output, started(["sh", "-c", {PARENT_AND_CHILD!r}], Path("."), output):
    print("started", flush=True)
    time.sleep(1000)
"""


def running(folder: Path) -> list[int]:
    """Those of the program and its child that exist."""
    return [number for name in ("parent", "child") if exists(number := int((folder / name).read_text()))]


def exists(number: int) -> bool:
    """Whether a process exists that is more than an entry nobody has asked about."""
    try:
        return Path(f"/proc/{number}/stat").read_text("latin-1").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_names(folder: Path) -> None:
    while not all((folder / name).exists() and (folder / name).read_text() for name in ("parent", "child")):
        time.sleep(0.01)


def test_a_program_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    command = ["sh", "-c", PARENT_AND_CHILD]
    with (tmp_path / "output").open("wb") as output, programs.started(command, tmp_path, output) as process:
        wait_for_names(tmp_path)
        assert len(running(tmp_path)) == 2
        assert process.pid in running(tmp_path)  # no shell between us and it
    assert all_gone(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_and_its_children_end_with_who_started_it(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"started\n"
        wait_for_names(tmp_path)
        assert len(running(tmp_path)) == 2
        user.send_signal(how)
    assert all_gone(tmp_path)


def all_gone(folder: Path) -> bool:
    """They end soon: the kernel takes its time."""
    for _ in range(1000):
        if not running(folder):
            return True
        time.sleep(0.01)
    return False


def test_children_that_outlive_their_parent_end_too(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 1000 & echo $! >child; echo $$ >parent"]
    with (tmp_path / "output").open("wb") as output, programs.started(command, tmp_path, output) as process:
        assert process.wait(60) == 0
    assert all_gone(tmp_path)


def test_output_and_exit_code_are_the_programs_own(tmp_path: Path) -> None:
    command = ["sh", "-c", "read -r line; echo \"[$line] $COLOUR '$1'\"; exit 7", "sh", "a b"]
    with (
        (tmp_path / "output").open("wb") as output,
        programs.started(command, tmp_path, output, COLOUR="red") as process,
    ):
        assert process.wait(60) == 7
    assert (tmp_path / "output").read_text() == "[] red 'a b'\n"


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert programs.find("pdp11") is None
    assert programs.not_found("pdp11") == "pdp11 was not found: apt-get install simh"


# -- the display of Bochs ----------------------------------------------------------------------------


def pretended(folder: Path, *displays: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `bochs` on the search path that knows these display libraries."""
    program = folder / "bochs"
    program.write_text(
        "#!/bin/sh\nwanted=$(sed -n 's/display_library: //p' bochsrc)\n"
        f"case ' {' '.join(displays)} ' in *\" $wanted \"*) echo 'bochsrc:2: directive not understood';;\n"
        "*) echo \"bochsrc:1: display library '$wanted' not available\";; esac\nexit 1\n",
        encoding="ascii",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (("rfb", "nogui", "term"), "term"),
        (("rfb", "wx", "nogui"), "nogui"),
        (("rfb", "wx", "x", "vncsrv"), None),
    ],
)
def test_a_display_is_chosen_among_those_that_are_installed(
    installed: tuple[str, ...], chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended(tmp_path, *installed, monkeypatch=monkeypatch)
    assert bochs._display(str(tmp_path / "bochs")) == chosen
    lacks = "bochs has none of the display libraries term, nogui: apt-get install bochs-term"
    assert bochs.missing() == (None if chosen else lacks)
    if chosen is None:
        with pytest.raises(bochs.BochsError, match=f"^{lacks}$"):
            bochs.run_rom(bytes(bochs.ROM_BYTES), b"")


@pytest.mark.emulator("bochs")
def test_the_installed_bochs_has_a_display_and_no_other_is_taken_for_one() -> None:
    path = str(programs.find("bochs"))
    assert bochs._display(path) in bochs.DISPLAYS
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(bochs, "DISPLAYS", ("no-such-library",))
        assert bochs._display.__wrapped__(path) is None


def test_no_display_opens_a_port_and_no_sound_card_is_asked_for() -> None:
    """Bochs' `rfb` and `vncsrv` listen on the network; its ALSA driver dies where there is no sound card."""
    assert {"rfb", "vncsrv"}.isdisjoint(bochs.DISPLAYS)
    (sound,) = [line for line in bochs._CONFIGURATION.splitlines() if line.startswith("sound:")]
    values = sound.format(silence=bochs._SILENCE)
    assert values == "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy"
