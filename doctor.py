"""What this machine has, what a run would use, and what is missing: `python doctor.py`."""

import sys

if __name__ == "__main__":
    try:
        from apps.interrupts import run_script
    except ModuleNotFoundError as error:  # requirements are not installed: here that is a finding
        print(f"The package {error.name} is missing: pip install -r requirements.txt")
        sys.exit(1)
    run_script("apps.doctor.command")
