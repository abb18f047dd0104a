"""Enrolling a target: its credential is changed, the former one is shown to be refused, other logins are named.

One module for what is changed in which order, and one for each protocol's side of it. Done by an operator, with rights
that no part of the service has.
"""
