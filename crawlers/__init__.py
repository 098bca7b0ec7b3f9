"""The Scrapy project: boards in, blobs and a ledger out; runs alone with `scrapy crawl`."""
