"""The work folder: tables and their schemas, files, run records, the lease, releases."""
