"""The serverless front door (a Chalice app); built with the AWS deployment."""
