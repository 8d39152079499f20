"""A file that is meant as a batch, and holds nothing that can be done: what is wrong with it."""

from pathlib import Path

from apps.openai_images.batch_detection import LOOKED_AT
from apps.openai_images.batch_file import BadLine, BatchFile
from apps.openai_images.rules import load_image_settings
from apps.tweets.tweets_file import read_tweets
from core.errors import InputError


def refuse_what_is_neither(path: Path) -> None:
    """Refuse a file that speaks of requests, if its first lines are neither requests nor tweets.

    Raises:
        InputError: it is neither; says what is wrong in both readings.
    """
    as_batch = next(iter(BatchFile(path, load_image_settings().images, limit=1)), None)
    if not isinstance(as_batch, BadLine):
        return
    try:
        entries = list(read_tweets(path, limit=LOOKED_AT).inputs)
    except InputError as error:
        as_tweets = str(error)
    else:
        problems = [entry for entry in entries if isinstance(entry, InputError)]
        if len(problems) < len(entries):
            return
        as_tweets = str(problems[0])
    raise InputError(
        f"{path}: nothing in it can be used. As requests of OpenAI's Batch API: line "
        f"{as_batch.line}: {as_batch.error.message} As tweets: {as_tweets}"
    )
