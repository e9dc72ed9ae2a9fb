"""An evenhand plugin from outside: the method `shout` and the benchmark `coin`."""
