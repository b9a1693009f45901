"""The ``dr`` command and the jobs' command lines."""
