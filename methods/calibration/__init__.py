"""Methods that correct the probabilities of labels."""
