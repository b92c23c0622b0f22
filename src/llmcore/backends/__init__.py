"""
The built-in backends. Each is optional and lazy, and is found as a plugin like
everybody else's.
"""
