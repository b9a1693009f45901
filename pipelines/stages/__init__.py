"""The stages on Spark: ``ingest`` the logs, ``training`` the model, its ``structure``; ``blocks`` of users that they read."""
