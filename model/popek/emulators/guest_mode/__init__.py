"""One instruction of an SVM guest at a time: the models in guest mode, and Bochs."""

from popek.emulators import DeclaredGuests

GUESTS = {
    "svm": DeclaredGuests(
        "Run one instruction of a guest under random intercepts: exit code, information and next rIP, or the state.",
        "popek/svm-guest-difftest/1",
        {
            "ia32": "popek.emulators.guest_mode.compare:GUESTS",
            "x86-64": "popek.emulators.guest_mode.long_compare:LONG_GUESTS",
        },
    ),
}
