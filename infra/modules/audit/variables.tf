variable "name" {
  description = "Begins every resource's name; the bus's and the workgroup's whole name"
  type        = string
}

variable "functions" {
  description = "Names of the functions, as their policies' files are named"
  type        = set(string)
}

variable "bucket" {
  description = "The locked bucket"
  type        = string
}

variable "bucket_key" {
  description = "ARN of the KMS key that its objects, and queries' results, are encrypted with"
  type        = string
}

variable "retention_days" {
  description = "How long logs are kept. What they tell for auditors is in the bucket besides."
  type        = number
  default     = 90
}

variable "most_scanned_gib" {
  description = "The most that one query may read: 10 GiB cost about $0.05"
  type        = number
  default     = 10
}

variable "results_days" {
  description = "How long results of queries are kept"
  type        = number
  default     = 30
}

variable "trail" {
  description = "Whether to make a trail of CloudTrail. False where the organization's own has management events with KMS, and this bucket's data events."
  type        = bool
  default     = true
}

variable "protect" {
  description = "Whether buckets with something in them are kept when everything else is destroyed"
  type        = bool
}
