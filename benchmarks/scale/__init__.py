"""The dispatcher with large backlogs, many deliveries, and many and large groups."""
