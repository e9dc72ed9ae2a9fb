"""The proving ground: the language, what is planted in it, and the demo benchmarks. All sentences are ours."""
