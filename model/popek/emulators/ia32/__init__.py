"""Single IA-32 instructions on emulators."""
