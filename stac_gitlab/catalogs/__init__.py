"""Catalogs of one's own: published as a GitLab project, and mirrored to a folder."""
