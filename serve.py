"""The warm daemon: models stay loaded behind HTTP, and accepted jobs survive; see --help."""

import sys

from apps.script import run_script

# API keys need nothing of what a daemon is made of, which takes seconds to import.
IS_ABOUT_KEYS = sys.argv[1:2] == ["keys"]

if __name__ == "__main__":
    run_script("apps.server.safety.key_command" if IS_ABOUT_KEYS else "apps.server.command")
