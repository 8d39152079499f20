"""One file per type of judge; each registers itself with `core.judge_type.JUDGES`."""
