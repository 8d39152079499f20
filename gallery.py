"""Write a page of all pictures of an output folder: `python gallery.py FOLDER`."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.gallery.command")
