"""Draw a picture for every tweet: `python generate_images_from_tweets.py TWEETS [NUM_GPUS]`."""

from core.interrupts import run_script


def command() -> int:
    from core.command import main

    return main()


if __name__ == "__main__":
    run_script(command)
