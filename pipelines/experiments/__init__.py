"""Studies beside a run: baselines at equal cost, and how much each setting matters."""
