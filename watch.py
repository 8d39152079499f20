"""Show how a run stands, from outside and without touching it: `python watch.py FOLDER`."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.watch.command")
