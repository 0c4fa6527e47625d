"""The commands as one application: what parses arguments, helps with each command, and completes names."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from popek import __version__

from . import COMMANDS, HELP
from .errors import UserError
from .options import shown_default

app = App(
    name="popek",
    version=__version__,
    help=HELP,
    default_parameter=Parameter(negative_iterable=(), show_default=shown_default),
    suppress_keyboard_interrupt=False,  # main says so itself
)
app.register_install_completion_command(add_to_startup=False)
for _name, _place, _purpose in COMMANDS:
    app.command(f"popek.cli.{_place}", name=_name)


def run(arguments: Sequence[str]) -> object:
    """What the command returns that the arguments name.

    Raises:
        UserError: there is no such command, or it has no such arguments.
    """
    try:
        return app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        raise UserError(f"no argument is expected here: {' '.join(error.unused_tokens or ())}") from None
    except CycloptsError as error:
        raise UserError(" ".join(str(error).split())) from None


__all__ = ["app", "run"]
