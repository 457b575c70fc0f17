"""What the hardening tests share: mutations of files, and a worker process that opens them under limits."""
