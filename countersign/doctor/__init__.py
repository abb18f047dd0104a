"""What `countersign doctor` looks at: is a deployment what it must be, seen from where the command runs."""
