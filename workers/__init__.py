"""The worker process: the only place that imports model code."""
