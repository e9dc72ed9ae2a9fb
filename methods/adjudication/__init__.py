"""Cross-model adjudication: models answer, judge one another's answers, and learn from those found least biased."""
