"""The instruction lists of the architectures: `<architecture>/instructions*.toml`, one file a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def table(architecture: str, name: str = "instructions") -> dict[str, Any]:
    """A list as it is in the file, for example `table("pdp10", "instructions-ka10")`.

    ``architecture`` and ``source`` say whose list it is, and from where; each ``section`` has a ``title`` and

    * ``modelled``: instructions that the model covers;
    * ``partly``: groups of ``instructions`` of which it covers a part, each with ``why``: what it lacks;
    * ``called``: instruction to our mnemonics for it, where they are not its name;
    * ``left_out``: groups of ``instructions`` that it lacks, each with ``why``.
    """
    import tomllib  # most uses of this package need no TOML

    return tomllib.loads((_HERE / architecture / f"{name}.toml").read_text("utf-8"))
