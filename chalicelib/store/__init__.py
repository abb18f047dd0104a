"""DynamoDB, S3, KMS, Lambda and Secrets Manager behind the protocols of the domain. The only door to boto3 and pynamodb."""
