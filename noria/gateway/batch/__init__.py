"""Files and batches: `api` is what clients see, `work` answers the lines, `store` and `files` hold both on disk."""
