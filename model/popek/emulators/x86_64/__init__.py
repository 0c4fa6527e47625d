"""Single x86-64 instructions on emulators."""

DIFFTESTS = {
    "x86-64": {
        "bochs": "popek.emulators.x86_64.compare:difftest",
        "unicorn": "popek.emulators.x86_64.unicorn:difftest",
    },
}
WITNESSES = {"x86-64": "popek.emulators.x86_64.witness:HARNESS"}
