"""What a person runs: the command line, the page, labelling. Nothing imports this package."""
