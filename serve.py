"""The warm daemon: models stay loaded behind HTTP, and accepted jobs survive; see --help."""

from apps.interrupts import run_script

if __name__ == "__main__":
    run_script("apps.server.command")
