"""`make demo`: a collector, the sample service, requests, and the table of what froze its loops."""
