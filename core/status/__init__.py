"""How a run stands, for whoever watches it: counts, speed, workers, failures, and its end."""
