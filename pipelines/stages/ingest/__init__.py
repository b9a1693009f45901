"""From raw logs to interactions, items, histories, quarantine and the held-out users."""
