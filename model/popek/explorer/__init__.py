"""The explorer: one page about one machine at a time, served by `popek explore` or built to be served by anybody.

`answers` is the protocol between the page and popek: a message in, some messages out.  In a served page they go over
HTTP, in a built one to a worker that runs popek under Pyodide.
"""
