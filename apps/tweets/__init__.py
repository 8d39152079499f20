"""A picture for every tweet: `generate_images_from_tweets.py`."""
