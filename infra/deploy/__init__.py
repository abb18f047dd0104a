"""The glue between Terraform and Chalice: one command that deploys a stage, one that takes it down (``make deploy``,
``make destroy``).

Rules: it runs with the operator's own AWS credentials and tools, keeps none of them, and leaves a checkout from which
``chalice deploy --stage STAGE`` alone works. Each step can be run again after a failure. Importing any module here
makes no call.
"""
