"""What tests this library, or with it, from outside. Nothing that a service runs imports it."""
