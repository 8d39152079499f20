"""What the commands share that draw or edit pictures: options, run, summary, exit codes."""
