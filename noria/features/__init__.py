"""Examples as token ids, attention mask and loss mask."""
