"""Single IA-32 instructions on emulators."""

DIFFTESTS = {
    "ia32": {
        "bochs": "popek.emulators.ia32.compare:difftest",
        "unicorn": "popek.emulators.ia32.unicorn:difftest",
    },
}
WITNESSES = {"ia32": "popek.emulators.ia32.witness_harness:HARNESS"}
