"""How well a release retrieves: per-user metrics, intervals and comparisons at equal cost."""
