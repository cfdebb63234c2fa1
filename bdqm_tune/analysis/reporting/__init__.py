"""The report of a study: what the stores know of it as plain data, and from that a page and a Markdown file."""
