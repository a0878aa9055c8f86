"""What `velora report` is made of: one page on what `velora label` has found, for a browser, from a file.

command       the command
tracks        each recording's spans on its own time, and what labels add up to
extent        when a recording begins and ends, by its windows
thumbnails    what was seen where the recogniser was least sure
page          the page; report.css and report.js are put into it
"""
