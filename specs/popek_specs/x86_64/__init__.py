"""Facts about x86-64: where emulators deviate from the manual."""
