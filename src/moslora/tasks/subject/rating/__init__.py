"""A blind human comparison of two sets of pictures: build a study, serve it to raters, score their votes."""
