"""DynamoDB, S3, KMS, Lambda and Secrets Manager behind the domain's protocols: the only door to boto3 and pynamodb."""
