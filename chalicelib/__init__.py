"""The control plane, and the domain that the broker imports."""
