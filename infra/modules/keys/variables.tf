variable "name" {
  description = "Begins every alias"
  type        = string
}

variable "signers" {
  description = "Purpose to the ARNs of those that sign with its key, and nobody else"
  type        = map(list(string))
}

variable "bucket_users" {
  description = "ARNs of those that read or write objects under the bucket's key, as far as their own policies say"
  type        = list(string)
}

variable "table_users" {
  description = "ARNs of those that DynamoDB may use the tables' key for"
  type        = list(string)
}

variable "sealers" {
  description = "ARNs of those that seal kept proofs, and can open none"
  type        = list(string)
}

variable "openers" {
  description = "ARNs of those that open kept proofs, and can seal none"
  type        = list(string)
}

variable "enders" {
  description = "ARNs of those that may disable or delete a key; empty: nobody may"
  type        = list(string)
}
