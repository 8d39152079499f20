"""Who gets what when: scheduling, supervision and retries."""
