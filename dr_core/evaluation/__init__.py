"""How well a release retrieves: the protocol, per-user metrics, intervals and comparisons at equal cost."""
