"""Work on a running daemon in place of workers of one's own (`serve.py`, docs/SERVER.md)."""
