"""The same work on every object under a prefix of a bucket, thousands of them, and a report."""
