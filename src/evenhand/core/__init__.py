"""What everything stands on, without torch: names to classes, records, the run folder, the answer cache, artifacts."""
