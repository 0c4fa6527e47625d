"""One instruction of an SVM guest at a time: the IA-32 model in guest mode, and Bochs."""
