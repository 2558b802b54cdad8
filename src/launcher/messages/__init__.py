"""Every message on the bus, by its receiver. Grep a class name and you find its sender, its receiver and its tests.

A Cast is not answered, a Call is answered with the type in its brackets, a Notice goes to whoever listens.
The audit's messages stand with its nouns in `auditing.py`.
Messages carry ids or a LaunchOrder; the row in the controller is the truth, a message is a nudge.
"""
