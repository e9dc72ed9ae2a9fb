"""Finding, downloading, checking and reading files."""
