"""The KS10's state, with TOPS-10 paging."""

from __future__ import annotations

from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Role, memory, word
from popek.kernel.words import Word, concat, ite

from .state import WORD, Pdp10, halves, is_accumulator, left, right

PHYSICAL, CORE_PAGE, PAGE = 20, 11, 9
WHOLE = 0o777

PAGE_FAIL = Vector("page failure", 0o500)
# Places in the user process table (TOPS-10 paging).
UPT_MUUO, UPT_MUUO_PC, UPT_CONTEXT, UPT_EXECUTIVE_PC, UPT_USER_PC = 0o424, 0o425, 0o426, 0o430, 0o434


class Ks10(Pdp10):
    """The whole machine but for its Unibus devices, its console and its timer."""

    bound = word(PAGE, role=Role.RESOURCE, reset=WHOLE)
    base = word(CORE_PAGE, role=Role.RESOURCE)
    # By core page of a user process table: bound (9 bits), base (11 bits).
    process_map = memory(address=CORE_PAGE, cell=PAGE + CORE_PAGE, role=Role.RESOURCE)
    ubr = word(CORE_PAGE, role=Role.RESOURCE)  # core page of the user process table
    ebr = word(CORE_PAGE, role=Role.RESOURCE)  # and of the executive's
    paging = word(1, role=Role.RESOURCE)
    pxct = word(4, role=Role.HIDDEN)  # which references of the next instruction are to the previous context
    context = word(4, role=Role.HIDDEN)  # and which of this one's
    apr_enabled = word(8, role=Role.RESOURCE)
    apr_flags = word(8, role=Role.RESOURCE)
    apr_channel = word(3, role=Role.RESOURCE)
    apr_id = word(WORD, role=Role.RESOURCE, reset=0o470130010001)  # microcode and processor numbers
    halt_status = word(PHYSICAL, role=Role.RESOURCE, reset=0o376000)
    map_in_user = word(1, role=Role.HIDDEN, reset=1)  # whether MAP is legal in user mode; fixed
    last = word(CORE_PAGE, role=Role.HIDDEN, reset=0o3777)  # the last page of core that exists
    # What double floating point makes of an operation (2 bits) and two pairs of words: four flags and a pair.
    double_floating = memory(address=2 + 4 * WORD, cell=4 + 2 * WORD, role=Role.HIDDEN)
    memory = memory(address=PHYSICAL, cell=WORD)

    def translated(self, reference: Word, previous: Word) -> Word:
        """Where a reference goes, in the previous context if `previous` (width 1).

        Raises:
            Fault: page failure.
        """
        page = reference[17:9]
        # The flag User In-out of executive mode says that the previous context is the user's.
        other = previous & ~self.flags.user & self.flags.user_io
        process = self.process_map.load(self.ubr)
        bound = ite(other, process[19:11], self.bound)
        base = ite(other, process[10:0], self.base)
        real = ite(self.paging, base + page.zero_extend(CORE_PAGE), page.zero_extend(CORE_PAGE))
        if (self.paging & (page > bound)) | (real > self.last):
            raise Fault(PAGE_FAIL, memory=True)
        return concat(real, reference[8:0])

    def _load(self, reference: Word, previous: Word) -> Word:
        if is_accumulator(reference):
            return self.ac[reference[3:0]]
        return self.memory.load(self.translated(reference, previous))

    def _store(self, reference: Word, value: Word, previous: Word) -> None:
        if is_accumulator(reference):
            self.ac[reference[3:0]] = value
        else:
            self.memory = self.memory.store(self.translated(reference, previous), value)

    def load(self, reference: Word) -> Word:
        """Accumulator or core, in the context of operands."""
        return self._load(reference, self.context[2])

    def store(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value, in the context of operands."""
        self._store(reference, value, self.context[2])

    def load_stack(self, reference: Word) -> Word:
        """As `load`, in the context of stacks."""
        return self._load(reference, self.context[0])

    def store_stack(self, reference: Word, value: Word) -> None:
        """As `store`, in the context of stacks."""
        self._store(reference, value, self.context[0])

    def load_previous(self, reference: Word) -> Word:
        """Accumulator or core, in the previous context."""
        return self._load(reference, Word(1, 1))

    def store_previous(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value, in the previous context."""
        self._store(reference, value, Word(1, 1))

    def count_up(self, pointer: Word) -> tuple[Word, Word]:
        """The halves are counted by themselves; the count ran out when the left one is 0."""
        upper = left(pointer) + 1
        return halves(upper, right(pointer) + 1), upper == 0

    def count_down(self, pointer: Word) -> tuple[Word, Word]:
        """The halves are counted by themselves; the count ran out when the left one is all 1s."""
        upper = left(pointer) - 1
        return halves(upper, right(pointer) - 1), upper == 0o777777

    def stack_overflow(self, condition: Word) -> None:
        """Trap 2."""
        self.flags.trap_2 = self.flags.trap_2 | condition

    def arithmetic_overflow(self, condition: Word) -> None:
        """Overflow and Trap 1."""
        self.flags.overflow = self.flags.overflow | condition
        self.flags.trap_1 = self.flags.trap_1 | condition

    def enter_user(self, condition: Word) -> None:
        """User := 1 and the user's map, if the condition holds."""
        now, process = condition & ~self.flags.user, self.process_map.load(self.ubr)
        self.bound = ite(now, process[19:11], self.bound)
        self.base = ite(now, process[10:0], self.base)
        self.flags.user = self.flags.user | condition

    @property
    def context_word(self) -> Word:
        """What RDUBR reads: load bits set, accumulator blocks 0, user base."""
        return concat(Word(25, 0o500000 << 7), self.ubr)
