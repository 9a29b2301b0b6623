"""`tandem report`: a comparison as a page, as Markdown, and held against requirements."""
