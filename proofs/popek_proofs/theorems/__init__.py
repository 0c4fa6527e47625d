"""The theorems of Popek and Goldberg, lemma by lemma, for any machine."""
