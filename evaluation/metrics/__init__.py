"""What benchmarks share: metrics and checkers."""
