"""The tests, one module for each area of the spec."""
