"""Edit pictures by instruction on all GPUs, then have a judge score them; see --help."""

from apps.interrupts import run_script


def command() -> int:
    from apps.edit_benchmark.command import main

    return main()


if __name__ == "__main__":
    run_script(command)
