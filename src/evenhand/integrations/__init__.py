"""Other tools: lm-evaluation-harness, the OpenAI protocol."""
