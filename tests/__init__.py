"""The tests of totora."""
