"""What several benchmarks share: scores of sentences and of multiple-choice answers, checkers, changes of answers.

It may import what benchmarks may, and no benchmark.
"""
