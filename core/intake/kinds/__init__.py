"""One file per kind of task; each registers itself with `core.intake.task_kinds.KINDS`."""
