"""Change pictures as an instruction says: `python edit_images.py PICTURES --instruction "…"`."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.edit_images.command")
