"""The command line: for pipelines, auditors and operators."""
