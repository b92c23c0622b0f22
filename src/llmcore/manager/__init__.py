"""
`ModelManager`: many resident models under one budget.
"""
