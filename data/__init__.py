"""Data sources: where each benchmark's files come from, and reading them with errors that name file and line."""
