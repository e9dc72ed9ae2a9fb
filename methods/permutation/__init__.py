"""Methods that average out the order of the options."""
