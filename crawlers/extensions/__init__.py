"""What watches a crawl without a say in it: the traffic counter and the progress bar."""
