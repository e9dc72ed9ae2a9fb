"""Partitioned contrastive gradient unlearning: its parts."""
