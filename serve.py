"""The warm daemon: models stay loaded behind HTTP, and accepted jobs survive; see --help."""

from apps.interrupts import run_script


def command() -> int:
    from apps.server.command import main

    return main()


if __name__ == "__main__":
    run_script(command)
