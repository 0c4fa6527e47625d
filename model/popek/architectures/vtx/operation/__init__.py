"""VMX operation on the IA-32 model: root and non-root, VM exits, and VT-x as a technique.

`state` adds the VMCS to the processor's state, `exits` makes VM exits, `non_root` says how every hook of
`ia32.interception` behaves, `machine` puts them together.
"""
