"""The command line: `totora`, with the extra `cli`."""
