"""The parts of partitioned contrastive gradient unlearning."""
