"""The durable state: records as JSON texts in a relational database, with one writer at a time."""
