"""Draw a picture for every tweet: `python generate_images_from_tweets.py TWEETS [NUM_GPUS]`."""

from apps.script import run_script

if __name__ == "__main__":
    run_script("apps.tweets.command")
