variable "name" {
  description = "Begins every table's and secret's name"
  type        = string
}

variable "bucket" {
  description = "Name of the locked bucket"
  type        = string
}

variable "bucket_key" {
  description = "ARN of the KMS key that its objects are encrypted with"
  type        = string
}

variable "table_key" {
  description = "ARN of the KMS key that the tables are encrypted with"
  type        = string
}

variable "lock_mode" {
  description = "GOVERNANCE or COMPLIANCE"
  type        = string
}

variable "lock_days" {
  description = "How long every object is locked at least"
  type        = number
}

variable "broker_role" {
  description = "ARN of the broker's role, which may lengthen a lock"
  type        = string
}

variable "break_glass" {
  description = "ARN of who may change how the bucket is set"
  type        = string
}

variable "secrets" {
  description = "Names of the secrets to make, after the deployment's own"
  type        = list(string)
}

variable "protect" {
  description = "Whether tables and a bucket with something in it are protected from deletion"
  type        = bool
}
