"""A small web shop with the mistakes that freeze event loops in real services, each in a module of its own.

    mistake                                              where
    requests.get in an async handler                     orders.py     create_order
    urlopen in a background task                         receipts.py   send_receipt
    a synchronous SQLite query                           reports.py    sales_by_region
    a file read for every request                        pages.py      terms
    subprocess.run                                       invoices.py   print_invoice
    parsing a large JSON document                        catalogue.py  search
    a pure-Python loop                                   pricing.py    best_bundle
    a wait for a threading.Lock that a thread holds      stock.py      reserve
    fsync in a call_later callback                       carts.py      Carts.expire

shipping.py, exports.py and waiting.py do the same kind of work without stopping the loop.
"""
