"""Connections of a `Model` to other tools: lm-evaluation-harness, the OpenAI protocol and Ray.

It may import `experiment` and everything below it, but not the proving ground.
"""
