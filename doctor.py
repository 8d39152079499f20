"""What this machine has, what a run would use, and what is missing: `python doctor.py`."""

import sys

from apps.script import run_script

if __name__ == "__main__":
    try:
        run_script("apps.doctor.command")
    except ModuleNotFoundError as error:  # requirements are not installed: here that is a finding
        print(f"The package {error.name} is missing: pip install -r requirements.txt")
        sys.exit(1)
