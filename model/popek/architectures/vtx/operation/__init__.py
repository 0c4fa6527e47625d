"""VMX operation on the IA-32 model, and VT-x as a technique.

`state` adds mode and VMCS to the processor's state, `exits` makes VM exits, `non_root` says how every hook of
`ia32.interception` behaves, `machine` puts them together; `transitions` are VM entry and exit.  `ownership` says
what a VMM wants to own and where its guest then is, `arrangement` puts both together with the controls left open,
`assistance` declares it all, `technique` names two arrangements for `popek classify`, `settings` those of public
hypervisors, `processor` which controls a processor has, `interrupt_claims` how interrupts reach the guest.
"""
