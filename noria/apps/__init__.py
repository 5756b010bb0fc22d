"""Command line, control plane and the processes that noria starts: thin doors to the rooms below."""
