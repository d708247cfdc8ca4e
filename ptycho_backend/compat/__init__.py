"""Names and files of earlier packages."""
