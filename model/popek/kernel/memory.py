"""Memory: cells of fixed width, addressed by words, with loads and stores that work on symbols.

A memory is a *root* (what was there before) and the stores made since.  The root is a mapping of
numbers (concrete), an uninterpreted function (any contents), or a *view*: a function of the address,
which is how relocation and a virtual machine map present one storage as another.  Nothing is ever
unrolled: a load answers from the stores and asks the root once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from . import terms
from .words import Word, concat, ite


@attrs.frozen(eq=False)
class Block:
    """A store of many cells at once: `cells` cells of `contents` from `source`, now at `destination`."""

    destination: Word
    source: Word
    cells: Word
    contents: Memory


Root: TypeAlias = "Mapping[int, int] | str | Callable[[Word], Word]"


@attrs.frozen(eq=False, repr=False)
class Memory:
    """Storage of 2**address_width cells of `cell_width` bits.

    Args:
        address_width: bits of an address.
        cell_width: bits of one cell.
        root: contents before any store: numbers by address (0 where absent), the name of an unknown
            contents, or a function from address to cell.
        stores: (address, cell) pairs, oldest first.
    """

    address_width: int
    cell_width: int
    root: Root = attrs.field(factory=dict)
    stores: tuple[tuple[Word, Word] | Block, ...] = ()

    def load(self, address: Word) -> Word:
        """The cell at `address`."""
        if address.width != self.address_width:
            raise TypeError(f"addresses of this memory have {self.address_width} bits, not {address.width}")
        pending: list[tuple[Word, Word]] = []
        pending_cell = Word(self.cell_width, 0)
        for entry in reversed(self.stores):
            if isinstance(entry, Block):
                distance = address - entry.destination
                same = distance < entry.cells
                cell = entry.contents.load(entry.source + distance) if same.value != 0 else pending_cell
            else:
                where, cell = entry
                same = where == address
            if same.value == 1:
                found = cell
                break
            if same.value != 0:
                pending.append((same, cell))
        else:
            found = self._before(address)
        for same, cell in reversed(pending):
            found = ite(same, cell, found)
        return found

    def _before(self, address: Word) -> Word:
        root = self.root
        if callable(root):
            return root(address)
        if isinstance(root, str):
            return Word(self.cell_width, terms.apply(root, self.cell_width, address.term))
        return Word(self.cell_width, root.get(int(address), 0))

    def store(self, address: Word, cell: Word) -> Memory:
        """The memory after `cell` was stored at `address`."""
        if cell.width != self.cell_width or address.width != self.address_width:
            raise TypeError(
                f"a store of {cell.width} bits at a {address.width}-bit address into memory of "
                f"{self.cell_width}-bit cells and {self.address_width}-bit addresses"
            )
        if isinstance(self.root, Mapping) and address.concrete and cell.concrete:
            return attrs.evolve(self, root={**self.root, int(address): int(cell)})
        return attrs.evolve(self, stores=(*self.stores, (address, cell)))

    def copy(self, destination: Word, source: Word, cells: Word) -> Memory:
        """The memory after `cells` consecutive cells were copied; nothing is unrolled on symbols."""
        if isinstance(self.root, Mapping) and destination.concrete and source.concrete and cells.concrete:
            memory = self
            for i in range(int(cells)):
                memory = memory.store(destination + i, self.load(source + i))
            return memory
        return attrs.evolve(self, stores=(*self.stores, Block(destination, source, cells, self)))

    def load_little_endian(self, address: Word, cells: int) -> Word:
        """`cells` consecutive cells as one word, the first the least significant."""
        return concat(*(self.load(address + i) for i in reversed(range(cells))))

    def store_little_endian(self, address: Word, value: Word) -> Memory:
        """`value` over consecutive cells, its least significant part first."""
        memory = self
        for i in range(value.width // self.cell_width):
            low = i * self.cell_width
            memory = memory.store(address + i, value[low + self.cell_width - 1 : low])
        return memory

    def substituted(
        self, replace: terms.Substitution, functions: Mapping[str, Callable[[Word], Word]]
    ) -> Memory:
        """The same stores on replaced terms; a named root listed in `functions` becomes a view."""
        root: Root = self.root
        if isinstance(root, str) and root in functions:
            root = functions[root]

        def word(old: Word) -> Word:
            return Word(old.width, replace(old.term))

        stores = tuple(
            Block(
                word(s.destination), word(s.source), word(s.cells), s.contents.substituted(replace, functions)
            )
            if isinstance(s, Block)
            else (word(s[0]), word(s[1]))
            for s in self.stores
        )
        return Memory(self.address_width, self.cell_width, root, stores)

    @property
    def concrete(self) -> bool:
        """True when every cell is a number."""
        return isinstance(self.root, Mapping) and not self.stores

    def cells(self) -> Mapping[int, int]:
        """The cells that were ever written, of a concrete memory."""
        if not isinstance(self.root, Mapping) or self.stores:
            raise TypeError("a symbolic memory has no list of cells")
        return self.root

    def __repr__(self) -> str:
        base = (
            f"{len(self.root)} cells"
            if isinstance(self.root, Mapping)
            else getattr(self.root, "__name__", self.root)
        )
        return f"Memory({base}, {len(self.stores)} stores)"
