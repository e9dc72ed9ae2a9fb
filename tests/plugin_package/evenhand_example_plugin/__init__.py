"""An evenhand plugin from outside: the method `shout`, the benchmark `coin` and the training data `proverbs`."""
