"""The engine decides who gets what when: scheduling, supervision and retries."""
