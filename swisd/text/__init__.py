"""Tokenizers, chat templates and incremental detokenising: standard library, and jinja2 for chats."""
