"""Programs scanned for instructions that break: files read, code swept, occurrences judged by derived answers."""
