"""Tokenizers, chat templates and incremental detokenising. Standard library only, jinja2 when a chat is rendered."""
