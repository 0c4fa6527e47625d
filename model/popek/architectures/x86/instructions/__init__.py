"""Instructions that are the same in every mode; `ia32` and `x86_64` declare them in their own families."""
