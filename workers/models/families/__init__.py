"""One file per model family; each registers itself with `workers.models.family`."""
