"""Shared parts of benchmarks: scores of sentences and of multiple-choice answers, checkers, changes of answers.

It may import what benchmarks may, but no benchmark.
"""
