"""AMD SVM: the VMCB and what VMRUN checks."""
