"""What `import popek` offers: one function a question, each with the command line's defaults.

An answer is an object with typed attributes. Its `to_json()` is the document that the command prints with `--json`;
`popek.rows(answer)` is its table as plain rows.
"""
