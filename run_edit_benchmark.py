"""Edit pictures by instruction on all GPUs, then have a judge score them; see --help."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.edit_benchmark.command")
