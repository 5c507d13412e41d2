"""Where CloudFlow's database runs on AWS."""
