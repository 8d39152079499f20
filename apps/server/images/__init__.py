"""OpenAI's Images API: pictures from prompts, and edits of pictures, for clients that know it.

https://platform.openai.com/docs/api-reference/images
"""
