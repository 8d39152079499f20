"""One file per form of input; each registers itself with `data_set.DATA_SETS`."""
