"""Other tools at the ends of a `Model`: lm-evaluation-harness and the OpenAI protocol.

It may import `experiment` and everything below it, but not the proving ground.
"""
