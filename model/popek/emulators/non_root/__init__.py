"""Single instructions of a guest in VMX non-root operation on Bochs."""

from popek.emulators import DeclaredGuests

GUESTS = {
    "non-root": DeclaredGuests(
        "Run one instruction of a guest under random controls: exit reason, qualification, information, or the state.",
        "popek/vtx-difftest/1",
        {
            "ia32": "popek.emulators.non_root.compare:GUESTS",
            "x86-64": "popek.emulators.non_root.long_compare:LONG_GUESTS",
        },
    ),
}
