"""Data sources: one reader per data set, with errors that name file and line; `io` locates, fetches and parses files.

It may import `statistics`, `prompting`, `core` and below; it does not use models, benchmarks or the proving ground.
"""
