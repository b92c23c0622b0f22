"""
Where models come from: a path, a model hub, or a scheme that a plugin adds.
"""
