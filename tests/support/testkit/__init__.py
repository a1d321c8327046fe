"""What the tests of several rooms build on: commands as processes, and stores made by hand."""
