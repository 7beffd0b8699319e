"""The commands of ``sobolev``: help, options and what runs of each stand together."""
