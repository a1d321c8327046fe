"""The door: one file per group of commands; a command parses, builds one configuration, calls one pipeline, prints."""
