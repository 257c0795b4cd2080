"""The command line, used as people and programs use it."""
