"""Draw a picture for every tweet: `python generate_images_from_tweets.py TWEETS [NUM_GPUS]`."""

import sys

from core.command import main

if __name__ == "__main__":
    sys.exit(main())
