"""Methods that change what a model is asked, or how it decodes."""
