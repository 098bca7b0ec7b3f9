"""The spiders, one a family of boards; which board they crawl is an argument."""
