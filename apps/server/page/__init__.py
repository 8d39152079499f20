"""The page at `/`: what a browser is given to watch the daemon and to ask for pictures."""
