"""`watch.py`: how a run stands, told by its folder or by a daemon, and read only."""
