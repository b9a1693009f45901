"""Readers that turn logs and catalogues into one raw frame, and the generator of synthetic logs."""
