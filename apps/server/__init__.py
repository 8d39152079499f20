"""The warm daemon: a durable queue behind HTTP, in front of one generator."""
