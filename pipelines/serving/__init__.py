"""Serving a release: opened without a JVM, in process or by Spark in batches."""
