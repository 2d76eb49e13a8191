"""The dashboard: pages that the server draws, for people.

A page reads what the rooms below offer and draws it; an act calls the same function as the API does, and so leaves the same
record with the person's name. What changes is announced by one stream of events (`live`), and each region of a page asks for
itself anew. Nothing comes from another host, no script and no style stands in a page.
"""
