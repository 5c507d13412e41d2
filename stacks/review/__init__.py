"""`make review`: the changes of a branch for each environment, in words, without an AWS account."""
