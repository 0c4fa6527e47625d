"""Single x86-64 instructions on emulators."""
