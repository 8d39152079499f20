"""Edit pictures by instruction on all GPUs, then have a judge score them; see --help."""

from core.interrupts import run_script


def command() -> int:
    from core.benchmark.command import main

    return main()


if __name__ == "__main__":
    run_script(command)
