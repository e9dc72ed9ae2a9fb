"""Data sources: a reader per data set, with errors that name file and line; `io` locates, fetches and parses the files.

It may import `statistics`, `prompting`, `core` and below; it knows no model, benchmark or proving ground.
"""
