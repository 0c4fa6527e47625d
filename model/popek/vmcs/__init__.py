"""Questions about whole VMCSs: repair, generation, comparison of rule sets, redundancy."""
