"""A part of the work, done by itself, and the parts put together: for those whose engine is a batch queue.

A shard is a JSON document with the command, which part of how many it is, and the results of its pieces.  Putting
shards together runs the command again, with the results at hand, so that what it prints is what one process prints.
"""

from __future__ import annotations

import base64
import enum
import io
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import attrs

from popek import __version__
from popek.errors import PopekError

from .processes import on_processes, processors

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

SCHEMA: Final = "popek/shard/1"


class ShardError(PopekError):
    """A shard that cannot be used, or one that is not there."""


class ShardDone(Exception):  # noqa: N818 -- no error
    """The part is done; what comes after it needs the others."""

    def __init__(self, pieces: int, results: Mapping[int, Any]) -> None:
        super().__init__(f"{len(results)} of {pieces} pieces")
        self.pieces, self.results = pieces, results


@attrs.frozen
class WorkPart:
    """Every `of`-th piece of the work, from the `number`-th on, counted from 1."""

    number: int
    of: int
    jobs: int = 1
    splits: ClassVar = True

    @staticmethod
    def read(text: str, jobs: int = 1) -> WorkPart:
        """A part as `--shard` has it, such as 2/8.

        Args:
            jobs: processes that do it; 0 for one per processor.

        Raises:
            ShardError: it is none.
        """
        number, sign, of = text.partition("/")
        if sign and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return WorkPart(int(number), int(of), jobs)
        raise ShardError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/8")

    def results(
        self, make: Callable[..., Callable[[ItemT], ResultT]], given: Sequence[Any], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """None: does its pieces, and raises.

        Raises:
            ShardDone: with what was found.
        """
        pieces, places = 0, list[int]()

        def own() -> Iterator[ItemT]:
            nonlocal pieces
            for pieces, item in enumerate(items, 1):
                if (pieces - 1) % self.of == self.number - 1:
                    places.append(pieces - 1)
                    yield item

        count = self.jobs or processors()
        found = map(make(*given), own()) if count == 1 else on_processes(make, given, own(), count)
        done = list(found)  # `places` and `pieces` are known after it
        raise ShardDone(pieces, dict(zip(places, done, strict=True)))
        yield  # a generator, as every engine's results are

    def document(self, command: Sequence[str], done: ShardDone) -> dict[str, Any]:
        """The shard as JSON."""
        return {
            "schema": SCHEMA,
            "popek": __version__,
            "command": list(command),
            "shard": self.number,
            "of": self.of,
            "pieces": done.pieces,
            "results": {
                str(place): base64.b64encode(pickle.dumps(found)).decode()
                for place, found in done.results.items()
            },
        }


@attrs.frozen
class Whole:
    """The shards of one command, put together.

    Attributes:
        command: its words.
        pieces: how many there are.
        known: their results.
    """

    command: tuple[str, ...]
    pieces: int
    known: Mapping[int, str]
    _used: list[bool] = attrs.field(factory=lambda: [False])
    splits: ClassVar = True

    def results(
        self, make: Callable[..., Callable[[ItemT], ResultT]], given: Sequence[Any], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """What the shards found; what depends on all of that is done here.

        Raises:
            ShardError: the shards are about other pieces.
        """
        if self._used[0]:
            yield from map(make(*given), items)
            return
        self._used[0] = True
        place = -1
        for place, _ in enumerate(items):
            if place < self.pieces:
                yield _loaded(self.known[place])
        if place + 1 != self.pieces:
            raise ShardError(
                f"the shards are about {self.pieces} pieces, and the command has {place + 1} now"
            )


def read_shards(names: Sequence[str]) -> Whole:
    """The shards of these files.

    Raises:
        ShardError: a file that is none, shards of different commands, or one that is missing.
    """
    known: dict[int, str] = {}
    first: tuple[Any, ...] | None = None
    numbers: dict[int, str] = {}
    for name in names:
        found = _read(name)
        about = (found["command"], found["of"], found["pieces"], found["popek"])
        first = first or about
        for what, one, other in zip(
            ("command", "number of shards", "pieces", "popek"), first, about, strict=True
        ):
            if one != other:
                raise ShardError(
                    f"{name}: {what}: expected {_said(one)} as in {names[0]}, found {_said(other)}"
                )
        if found["shard"] in numbers:
            raise ShardError(f"{name}: is shard {found['shard']}, as {numbers[found['shard']]} is")
        numbers[found["shard"]] = name
        known |= {int(place): text for place, text in found["results"].items()}
    assert first is not None
    command, of, pieces, version = first
    if version != __version__:
        raise ShardError(f"{names[0]}: is of popek {version}, and this is {__version__}")
    missing = [str(number) for number in range(1, of + 1) if number not in numbers]
    if missing:
        raise ShardError(f"shards {', '.join(missing)} of {of} are missing")
    if known.keys() != set(range(pieces)):
        raise ShardError(f"the shards have {len(known)} of {pieces} pieces")
    return Whole(tuple(command), pieces, known)


_KEYS: Final[Mapping[str, type]] = {
    "schema": str, "popek": str, "command": list, "shard": int, "of": int, "pieces": int, "results": dict,
}  # fmt: skip


def _read(name: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(name).read_bytes())
    except OSError as error:
        raise ShardError(f"{name}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError as error:
        raise ShardError(f"{name}: expected a shard, as --shard prints it: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ShardError(f"{name}: expected a shard, as --shard prints it")
    for key, kind in _KEYS.items():
        if not isinstance(found.get(key), kind):
            raise ShardError(f"{name}: {key}: expected a {kind.__name__}, found {found.get(key)!r}")
    return found


def _said(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class _Results(pickle.Unpickler):
    """Reads what popek's own classes hold, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A class of popek's, or a plain one.

        Raises:
            ShardError: something else.
        """
        if (module, name) == ("builtins", "getattr"):
            return _member  # how the first Pythons 3.11 keep a member of an enumeration
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if module.partition(".")[0] in ("popek", "popek_proofs") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise ShardError(f"a result holds {module}.{name}: expected what popek finds")


def _member(kind: Any, name: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[name]
    raise ShardError(f"a result holds {name} of {kind}: expected what popek finds")


_PLAIN: Final = (
    {("builtins", name) for name in ("object", "set", "frozenset", "bytearray", "complex", "range")}
    | {("collections", name) for name in ("Counter", "OrderedDict", "deque")}
    | {
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
    }
)


def _loaded(text: str) -> Any:
    try:
        return _Results(io.BytesIO(base64.b64decode(text))).load()
    except (ValueError, EOFError, AttributeError, ImportError, IndexError, pickle.UnpicklingError) as error:
        raise ShardError(f"a result cannot be read: {error}") from None


__all__ = ["ShardDone", "ShardError", "Whole", "WorkPart", "read_shards"]
