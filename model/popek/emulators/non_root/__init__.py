"""Single instructions of a guest in VMX non-root operation on Bochs."""
