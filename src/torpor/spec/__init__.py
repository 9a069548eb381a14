"""What people declare, and what they are shown of it: models, files with positions, schema, status."""
