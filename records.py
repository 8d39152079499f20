"""Say what the record of an output folder tells: `python records.py FOLDER [WHAT]`."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.gallery.records.command")
