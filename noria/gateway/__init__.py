"""The OpenAI-compatible data plane: the only hot path, a process of its own."""
