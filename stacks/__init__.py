"""CloudFlow's database on AWS: one file for each stack."""
