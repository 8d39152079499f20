"""What a user runs; each program imports core, and none imports another."""
