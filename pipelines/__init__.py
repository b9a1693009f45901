"""The stages on Spark and Delta, and what is run of them. From the bottom up:

* ``storage``: the work folder: tables, files, run records, the lease, releases
* ``datasets``: where logs come from
* ``spark``: the session and what its workers keep
* ``stages``: logs to samples (``ingest``, ``training``), model to paths and index (``structure``)
* ``config``: the run's configuration
* ``serving``: a release answering, in this process or by Spark in batches
* ``evaluation``: what is measured, against which controls
* ``report``: the pages made of it
* ``flows``: day one, each day after, gates, publishing, retention
* ``experiments``: baselines and sweeps beside a run
* ``cli``: the ``dr`` command and the jobs' command lines
"""
