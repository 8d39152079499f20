"""OpenAI's Batch API: files of many requests, done when nothing more urgent waits.

https://platform.openai.com/docs/api-reference/batch
"""
