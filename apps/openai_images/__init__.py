"""What requests of OpenAI's Images API mean here: parameters, tasks, answers, batch files.

Whoever reads such requests stands on this: the daemon, and the command line. Public names:
`run_batch` runs a batch file on a generator.

https://platform.openai.com/docs/api-reference/images
https://platform.openai.com/docs/guides/batch
"""

from apps.openai_images.batch import BatchOutcome, run_batch

__all__ = ["BatchOutcome", "run_batch"]
