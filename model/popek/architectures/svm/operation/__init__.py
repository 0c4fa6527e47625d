"""SVM operation on the IA-32 model, and AMD-V as a technique.

`state` adds guest mode and VMCB to the processor's state, `intercepts` says which intercept an instruction has and when
it is checked, `exits` makes #VMEXITs, `guest_mode` says how every hook of `ia32.interception` behaves, `instructions`
are SVM's own, `machine` puts them together.  `ownership` says what a VMM wants to own and where its guest then is,
`arrangement` puts both together with the intercepts left open, `assistance` declares it all, `settings` are those of
public hypervisors, `processor` says which controls a processor has.
"""
