"""What popek raises where a question cannot be asked: one line that says what was expected, and where."""

from __future__ import annotations


class PopekError(ValueError):
    """A name, a setting, a file or a model that popek cannot make anything of; the message is one line.

    Every error of popek's that a user can cause is one.  What is a defect of popek (a witness that does not replay,
    solvers that disagree) is none, and neither is a wrong type of an argument.

    >>> import popek
    >>> try:
    ...     popek.classify("pg47")
    ... except popek.PopekError as error:
    ...     print(error)
    unknown machine 'pg47'; did you mean pg74?
    """


__all__ = ["PopekError"]
