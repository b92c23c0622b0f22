"""
The engine room: batching, prefix reuse, sampling and text, behind `llmcore.Sequence`.
"""
