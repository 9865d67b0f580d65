"""The program that invoices.py starts: python printer.py NUMBER writes an invoice, ready to be sent, to stdout."""

import sys
from decimal import Decimal
from email.message import EmailMessage
from xml.dom import minidom


def print_invoice(number: int) -> None:
    """One invoice as HTML, in a mail."""
    document = minidom.Document()
    table = document.appendChild(document.createElement("table"))
    for line in range(400):
        row = table.appendChild(document.createElement("tr"))
        row.appendChild(document.createTextNode(f"article {line}, {Decimal(line * 99) / 100} EUR"))
    mail = EmailMessage()
    mail["Subject"] = f"Invoice {number}"
    mail.set_content("Please look at the table.")
    mail.add_alternative(document.toprettyxml(), subtype="html")
    sys.stdout.write(mail.as_string())


if __name__ == "__main__":
    print_invoice(int(sys.argv[1]))
