"""
What happens and how long it takes, told to whoever listens.
"""
