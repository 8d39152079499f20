"""What a run would do, before it starts: checked, estimated, and told; nothing is touched."""
