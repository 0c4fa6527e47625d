"""What IA-32, IA-32e mode, VMX and SVM share; no machine of its own.

Registers, segments and descriptors, references to storage, paging, flags, exceptions and interception are
written once, for an `X86`: the state that every mode has.  `ia32` and `x86_64` stand on it.
"""
